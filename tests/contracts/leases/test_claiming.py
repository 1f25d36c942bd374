"""Which job a claim takes, on a real Redis without a worker."""

from __future__ import annotations

import threading

import pytest

from contracts.jobs.records import JobState
from contracts.leases.claim import Claim
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria, MustRunAlone, NextJobs, NotReady
from contracts.queue.client import JobQueue
from contracts.requests.entry_parameters import ControlParameters, LoraParameters
from contracts.requests.schema import Priority
from tests.support.claims import ANY_JOB, MakeClaims, take, take_all
from tests.support.parameters import parameters

LINES = ControlParameters(
    controlnet="lines", image="inputs/a.png", preprocess=None, conditioning_scale=1.0, guidance_start=0.0,
    guidance_end=1.0,
)  # fmt: skip


def names(queue: JobQueue, pattern: str) -> set[str]:
    return set(queue.connection.scan_iter(pattern))


def test_a_claim_moves_the_job_from_its_queue_to_a_lease_in_one_step(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    job = queue.submit(parameters())
    claim = take(make_claims())
    assert claim.job.id == job.id
    assert claim.job.state is JobState.RUNNING
    assert claim.job.attempts == 1
    assert queue.connection.llen(f"rq:queue:{job.queue}") == 0
    assert queue.connection.zscore("darkroom:leases", job.id) is not None
    assert queue.connection.hget(f"rq:job:{job.id}", "status") == "started"


def test_a_claim_on_an_empty_queue_is_empty(make_claims: MakeClaims) -> None:
    assert make_claims().claim(ClaimCriteria()) is None


def test_a_higher_tier_is_served_before_an_older_job(queue: JobQueue, make_claims: MakeClaims) -> None:
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
        queue.submit(parameters(), priority=priority)
    claims = make_claims()
    assert [take(claims).job.priority for _ in range(3)] == ["high", "normal", "low"]


def test_a_job_of_a_warm_model_goes_before_an_older_job_of_a_cold_model(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    queue.submit(parameters(model="cold"))
    queue.submit(parameters(model="warm"))
    assert take(make_claims(), ClaimCriteria(warm=["warm"])).job.parameters.model == "warm"


def test_an_overdue_job_goes_before_a_warm_model_that_has_settled(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    queue.submit(parameters(model="cold"))
    queue.submit(parameters(model="warm"))
    queue.submit(parameters(model="warm"))
    claims = make_claims(overdue_seconds=0)
    assert take(claims, ClaimCriteria(warm=["warm"], settled=False)).job.parameters.model == "warm"
    assert take(claims, ClaimCriteria(warm=["warm"], settled=True)).job.parameters.model == "cold"


def test_owners_take_turns_however_many_jobs_they_queue(queue: JobQueue, make_claims: MakeClaims) -> None:
    for _ in range(4):
        queue.submit(parameters(batchable=False), owner="greedy")
    for _ in range(2):
        queue.submit(parameters(batchable=False), owner="modest")
    claims = make_claims()
    served = [take(claims).job.owner for _ in range(6)]
    assert served == ["greedy", "modest", "greedy", "modest", "greedy", "greedy"]


def test_a_claim_takes_one_job_and_the_next_claim_the_next(queue: JobQueue, make_claims: MakeClaims) -> None:
    ids = [queue.submit(parameters(seed=number)).id for number in range(3)]
    assert [claim.job.id for claim in take_all(make_claims())] == ids


def test_a_tier_without_room_is_skipped(queue: JobQueue, make_claims: MakeClaims) -> None:
    for priority in Priority:
        queue.submit(parameters(), priority=priority)
    claims = make_claims()
    assert claims.claim(ClaimCriteria(room={})) is None
    assert take(claims, ClaimCriteria(room={"high": 0, "low": 2})).job.priority is Priority.LOW
    assert claims.claim(ClaimCriteria(room={"high": 0, "low": 1})) is None
    assert [claim.job.priority for claim in take_all(claims)] == [Priority.HIGH, Priority.NORMAL]


def let_lease_expire(queue: JobQueue, claims: Claims, claim: Claim) -> None:
    queue.connection.zadd("darkroom:leases", {claim.job.id: 1})
    assert claims.reap() == (1, [])


def test_a_job_whose_worker_was_lost_is_claimed_only_by_a_worker_without_other_jobs(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    suspect, other = queue.submit(parameters()), queue.submit(parameters())
    dead, claims = make_claims("dead"), make_claims("busy")
    let_lease_expire(queue, claims, take(dead))

    with pytest.raises(MustRunAlone):
        claims.claim(ClaimCriteria(in_flight=1))

    assert queue.fetch(suspect.id).state is JobState.QUEUED
    claim = take(claims)
    assert (claim.job.id, claim.alone) == (suspect.id, True)
    claim = take(claims, ClaimCriteria(in_flight=1))
    assert (claim.job.id, claim.alone) == (other.id, False)


def test_what_a_job_that_must_run_alone_lacks_is_told_to_a_busy_worker_too(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    queue.submit(parameters(model="cold"))
    claims = make_claims()
    claims.release(take(claims), device_failed=True)
    with pytest.raises(NotReady):
        claims.claim(ClaimCriteria(ready=["warm"], in_flight=1))


def contents(queue: JobQueue) -> dict[str, object]:
    """All that Redis holds. The dump of a hash is not comparable: its order may change without a write."""
    connection = queue.connection
    return {
        name: connection.hgetall(name) if connection.type(name) == "hash" else connection.dump(name)
        for name in names(queue, "*")
    }


def test_a_peek_returns_the_jobs_that_the_next_claims_take_and_takes_none(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    for number in range(4):
        queue.submit(parameters(model=f"model-{number % 2}", num_inference_steps=40), owner="first")
        queue.submit(parameters(), owner="second")
    queue.submit(parameters(), owner="third", priority=Priority.HIGH)
    queue.submit(parameters(), owner="third")
    claims = make_claims()
    before = contents(queue)
    for _ in range(2):
        found = [job.id for job in claims.peek(ANY_JOB).jobs]
    assert contents(queue) == before
    assert found == [take(claims).job.id for _ in range(4)]
    assert len({queue.fetch(id).owner for id in found}) == 3


def test_a_peek_of_a_full_worker_returns_the_jobs_that_it_will_take(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    job = queue.submit(parameters(), priority=Priority.LOW)
    found = make_claims().peek(ClaimCriteria(room={}, in_flight=8))
    assert [job.id for job in found.jobs] == [job.id]


def test_a_peek_names_what_jobs_lack_beside_those_that_lack_nothing(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    queue.submit(parameters(model="cold", loras=(LoraParameters(name="ink"),)))
    queue.submit(parameters(model="cold"))
    plain = queue.submit(parameters(model="warm"))
    controlled = queue.submit(parameters(model="warm", controls=(LINES,)))
    found = make_claims().peek(ClaimCriteria(ready=["warm"]))
    assert [job.id for job in found.jobs] == [plain.id]
    assert sorted(found.unready) == ["cold", "controlnet:lines", "lora:ink"]
    ready = make_claims().peek(ClaimCriteria(ready=["warm", "controlnet:lines"], deferred=["cold"]))
    assert [job.id for job in ready.jobs] == [plain.id, controlled.id]


def test_a_peek_into_an_empty_queue_is_empty(make_claims: MakeClaims) -> None:
    assert make_claims().peek(ClaimCriteria()) == NextJobs([], [])


def test_a_model_that_is_not_ready_is_named_and_no_job_is_claimed(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    cold = queue.submit(parameters(model="cold"))
    claims = make_claims()
    with pytest.raises(NotReady) as unready:
        claims.claim(ClaimCriteria(warm=["warm"], ready=["warm"]))
    assert unready.value.names == ("cold",)
    assert claims.peek(ClaimCriteria(warm=["warm"], ready=["warm"])) == NextJobs([], ["cold"])
    assert queue.fetch(cold.id).state is JobState.QUEUED
    assert take(claims, ClaimCriteria(ready=["cold"])).job.id == cold.id


def test_a_deferred_model_delays_no_other_job_in_any_tier(queue: JobQueue, make_claims: MakeClaims) -> None:
    cold = queue.submit(parameters(model="cold"), priority=Priority.HIGH)
    ids = [queue.submit(parameters(model="warm", batchable=False)).id for _ in range(2)]
    claims = make_claims(overdue_seconds=0)
    criteria = ClaimCriteria(warm=["warm"], ready=["warm"], deferred=["cold"])
    assert [take(claims, criteria).job.id for _ in ids] == ids
    assert claims.claim(criteria) is None
    assert queue.fetch(cold.id).state is JobState.QUEUED
    # Another worker, which has the model ready, may take the job.
    assert take(make_claims("second"), ClaimCriteria(warm=["cold"], ready=["cold"])).job.id == cold.id


def test_a_job_with_a_deferred_controlnet_is_skipped(queue: JobQueue, make_claims: MakeClaims) -> None:
    controlled = queue.submit(parameters(model="warm", controls=(LINES,)))
    plain = queue.submit(parameters(model="warm"))
    claims = make_claims()
    with pytest.raises(NotReady) as unready:
        claims.claim(ClaimCriteria(warm=["warm"], ready=["warm"]))
    assert unready.value.names == ("controlnet:lines",)
    criteria = ClaimCriteria(warm=["warm"], ready=["warm"], deferred=["controlnet:lines"])
    assert take(claims, criteria).job.id == plain.id
    assert claims.claim(criteria) is None
    ready = ClaimCriteria(warm=["warm"], ready=["warm", "controlnet:lines"])
    assert take(claims, ready).job.id == controlled.id


def test_a_lora_of_the_catalogue_must_be_ready_and_an_uploaded_one_need_not(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    uploaded = LoraParameters(name="mine", key="inputs/a.safetensors", sha256="ab", values=1)
    styled = queue.submit(parameters(model="warm", loras=(LoraParameters(name="ink"), uploaded), batchable=False))
    claims = make_claims()
    for ready, missing in ([], ("warm", "lora:ink")), (["warm"], ("lora:ink",)):
        with pytest.raises(NotReady) as unready:
            claims.claim(ClaimCriteria(ready=ready))
        assert unready.value.names == missing
    assert take(claims, ClaimCriteria(ready=["warm", "lora:ink"])).job.id == styled.id


def test_a_job_is_found_behind_many_that_wait_for_a_download(queue: JobQueue, make_claims: MakeClaims) -> None:
    for _ in range(80):
        queue.submit(parameters(loras=(LoraParameters(name="ink"),)))
    plain = queue.submit(parameters())
    queue.cancel(queue.submit(parameters()).id)
    claims = make_claims()
    criteria = ClaimCriteria(deferred=["lora:ink"])
    assert take(claims, criteria).job.id == plain.id
    assert claims.claim(criteria) is None


def test_ended_jobs_behind_a_deferred_job_leave_the_queue(queue: JobQueue, make_claims: MakeClaims) -> None:
    controlled = queue.submit(parameters(controls=(LINES,)))
    cancelled = queue.submit(parameters())
    queue.cancel(cancelled.id)
    assert make_claims().claim(ClaimCriteria(deferred=["controlnet:lines"])) is None
    assert queue.connection.lrange(f"rq:queue:{controlled.queue}", 0, -1) == [controlled.id]
    assert take(make_claims()).job.id == controlled.id


def test_no_two_workers_claim_the_same_job(queue: JobQueue, make_claims: MakeClaims) -> None:
    count = 60
    taken: list[str] = []
    for _ in range(count):
        queue.submit(parameters(batchable=False))

    def take(worker: str) -> None:
        claims = make_claims(worker)
        taken.extend(claim.job.id for claim in take_all(claims))

    threads = [threading.Thread(target=take, args=(f"worker-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == count
