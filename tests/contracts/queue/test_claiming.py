"""Which jobs a claim takes, in which order and together with which others, on a real Redis without a worker."""

from __future__ import annotations

import threading
import time

import pytest

from contracts.queue.client import JobQueue
from contracts.queue.leases import ClaimCriteria, ClaimDeferred, NextJobs, NotReady
from contracts.queue.records import JobState
from contracts.requests.parameters import ControlParameters, JobParameters, LoraParameters
from contracts.requests.schema import Priority
from tests.support.claims import MakeClaims
from tests.support.parameters import parameters

UP_TO_FOUR_IMAGES = ClaimCriteria(max_images=4, batching=True)
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
    (claim,) = make_claims().claim(ClaimCriteria())
    assert claim.job.id == job.id
    assert claim.job.state is JobState.RUNNING
    assert claim.job.attempts == 1
    assert queue.connection.llen(f"rq:queue:{job.queue}") == 0
    assert queue.connection.zscore("darkroom:leases", job.id) is not None
    assert queue.connection.hget(f"rq:job:{job.id}", "status") == "started"


def test_a_claim_on_an_empty_queue_is_empty(make_claims: MakeClaims) -> None:
    assert make_claims().claim(ClaimCriteria()) == []


def test_jobs_with_the_same_batch_key_are_claimed_together_up_to_the_limit(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    ids = [queue.submit(parameters(prompt=f"prompt {number}", seed=number)).id for number in range(6)]
    assert [claim.job.id for claim in make_claims().claim(UP_TO_FOUR_IMAGES)] == ids[:4]
    assert [claim.job.id for claim in make_claims().claim(UP_TO_FOUR_IMAGES)] == ids[4:]


def test_jobs_that_differ_in_steps_or_are_not_batchable_never_share_a_claim(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    queue.submit(parameters())
    queue.submit(parameters(num_inference_steps=5))
    queue.submit(parameters(batchable=False))
    queue.submit(parameters(batchable=False))
    claims = make_claims()
    assert [len(claims.claim(UP_TO_FOUR_IMAGES)) for _ in range(4)] == [1, 1, 1, 1]


def test_images_of_one_job_count_towards_the_limit(queue: JobQueue, make_claims: MakeClaims) -> None:
    queue.submit(parameters(num_images=3))
    queue.submit(parameters(num_images=2))
    queue.submit(parameters(num_images=1))
    assert [claim.job.parameters.num_images for claim in make_claims().claim(UP_TO_FOUR_IMAGES)] == [3, 1]


def test_a_models_pixel_limit_bounds_a_claim(queue: JobQueue, make_claims: MakeClaims) -> None:
    for _ in range(4):
        queue.submit(parameters())
    limits = {"shapes-sdxl": 3 * 64 * 64, "another": 1}
    claims = make_claims()
    assert len(claims.claim(ClaimCriteria(max_images=8, batching=True, model_pixels=limits))) == 3
    # A job that exceeds the limit is not refused here: it runs alone, and may still fit.
    assert len(claims.claim(ClaimCriteria(max_images=8, batching=True, model_pixels={"shapes-sdxl": 1}))) == 1


def with_adapters(*names: str, scale: float = 1.0) -> JobParameters:
    return parameters(loras=[LoraParameters(name=name, scale=scale) for name in names])


def test_a_claim_has_no_more_adapters_than_stay_loaded(queue: JobQueue, make_claims: MakeClaims) -> None:
    jobs = [with_adapters("a"), with_adapters("b", "a"), with_adapters("c"), with_adapters("b"), with_adapters()]
    ids = [queue.submit(job).id for job in jobs]
    criteria = ClaimCriteria(max_images=8, batching=True, max_adapters=2)
    claims = make_claims()
    assert [claim.job.id for claim in claims.claim(criteria)] == [ids[0], ids[1], ids[3], ids[4]]
    assert [claim.job.id for claim in claims.claim(criteria)] == [ids[2]]


def test_a_job_with_more_adapters_than_stay_loaded_runs_with_jobs_that_need_no_others(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    ids = [queue.submit(with_adapters(*names)).id for names in ("abc", "abc", "d", "b")]
    claimed = make_claims().claim(ClaimCriteria(max_images=8, batching=True, max_adapters=2))
    assert [claim.job.id for claim in claimed] == [ids[0], ids[1], ids[3]]


def test_jobs_with_the_same_adapters_go_before_older_jobs_with_others(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    jobs = [with_adapters("a"), with_adapters("b"), with_adapters("a", scale=0.5), with_adapters("a")]
    ids = [queue.submit(job).id for job in jobs]
    claims, criteria = make_claims(), ClaimCriteria(max_images=3, batching=True)
    assert [claim.job.id for claim in claims.claim(criteria)] == [ids[0], ids[3], ids[1]]
    assert [claim.job.id for claim in claims.claim(criteria)] == [ids[2]]


def test_a_higher_tier_is_served_before_an_older_job(queue: JobQueue, make_claims: MakeClaims) -> None:
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
        queue.submit(parameters(), priority=priority)
    claims = make_claims()
    assert [claims.claim(ClaimCriteria())[0].job.priority for _ in range(3)] == ["high", "normal", "low"]


def test_a_job_of_a_warm_model_goes_before_an_older_job_of_a_cold_model(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    queue.submit(parameters(model="cold"))
    queue.submit(parameters(model="warm"))
    assert make_claims().claim(ClaimCriteria(warm=["warm"]))[0].job.parameters.model == "warm"


def test_an_overdue_job_goes_before_a_warm_model_that_has_settled(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    queue.submit(parameters(model="cold"))
    queue.submit(parameters(model="warm"))
    queue.submit(parameters(model="warm"))
    claims = make_claims(overdue_seconds=0)
    assert claims.claim(ClaimCriteria(warm=["warm"], settled=False))[0].job.parameters.model == "warm"
    assert claims.claim(ClaimCriteria(warm=["warm"], settled=True))[0].job.parameters.model == "cold"


def test_owners_take_turns_however_many_jobs_they_queue(queue: JobQueue, make_claims: MakeClaims) -> None:
    for _ in range(4):
        queue.submit(parameters(batchable=False), owner="greedy")
    for _ in range(2):
        queue.submit(parameters(batchable=False), owner="modest")
    claims = make_claims()
    served = [claims.claim(ClaimCriteria())[0].job.owner for _ in range(6)]
    assert served == ["greedy", "modest", "greedy", "modest", "greedy", "greedy"]


def test_a_batchable_job_waits_for_others_no_longer_than_the_limit(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    queue.submit(parameters())
    criteria = ClaimCriteria(max_images=2, batching=True, batch_wait_seconds=0.2)
    claims = make_claims()
    with pytest.raises(ClaimDeferred) as deferred:
        claims.claim(criteria)
    assert 0 < deferred.value.seconds <= 0.2
    time.sleep(deferred.value.seconds)
    assert len(claims.claim(criteria)) == 1


def test_a_job_that_waits_for_others_does_not_delay_other_jobs(queue: JobQueue, make_claims: MakeClaims) -> None:
    queue.submit(parameters())
    other = queue.submit(parameters(model="other", batchable=False))
    (claim,) = make_claims().claim(ClaimCriteria(max_images=2, batching=True, batch_wait_seconds=60))
    assert claim.job.id == other.id


def contents(queue: JobQueue) -> dict[str, object]:
    """All that Redis holds. The dump of a hash is not comparable: its order may change without a write."""
    connection = queue.connection
    return {
        name: connection.hgetall(name) if connection.type(name) == "hash" else connection.dump(name)
        for name in names(queue, "*")
    }


def test_a_peek_returns_the_jobs_that_a_claim_would_take_and_takes_none(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    queue.submit(parameters(model="cold"))
    ids = [queue.submit(parameters(model="warm", seed=number)).id for number in range(5)]
    claims, criteria = (
        make_claims(),
        ClaimCriteria(warm=["warm"], max_images=4, batching=True, batch_wait_seconds=60),
    )
    before = contents(queue)
    for _ in range(2):
        assert [job.id for job in claims.peek(criteria).jobs] == ids[:4]
    assert contents(queue) == before
    assert [claim.job.id for claim in claims.claim(criteria)] == ids[:4]
    # A claim of the last job waits for others; a peek returns it at once.
    assert [job.id for job in claims.peek(criteria).jobs] == ids[4:]
    assert claims.peek(ClaimCriteria(warm=["warm"])).jobs[0].id == ids[4]


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
    assert claims.claim(ClaimCriteria(ready=["cold"]))[0].job.id == cold.id


def test_a_deferred_model_delays_no_other_job_in_any_tier(queue: JobQueue, make_claims: MakeClaims) -> None:
    cold = queue.submit(parameters(model="cold"), priority=Priority.HIGH)
    ids = [queue.submit(parameters(model="warm", batchable=False)).id for _ in range(2)]
    claims = make_claims(overdue_seconds=0)
    criteria = ClaimCriteria(warm=["warm"], ready=["warm"], deferred=["cold"])
    assert [claims.claim(criteria)[0].job.id for _ in ids] == ids
    assert claims.claim(criteria) == []
    assert queue.fetch(cold.id).state is JobState.QUEUED
    # Another worker, which has the model ready, may take the job.
    assert make_claims("second").claim(ClaimCriteria(warm=["cold"], ready=["cold"]))[0].job.id == cold.id


def test_a_job_with_a_deferred_controlnet_is_skipped(queue: JobQueue, make_claims: MakeClaims) -> None:
    controlled = queue.submit(parameters(model="warm", controls=(LINES,)))
    plain = queue.submit(parameters(model="warm"))
    claims = make_claims()
    with pytest.raises(NotReady) as unready:
        claims.claim(ClaimCriteria(warm=["warm"], ready=["warm"]))
    assert unready.value.names == ("controlnet:lines",)
    criteria = ClaimCriteria(warm=["warm"], ready=["warm"], deferred=["controlnet:lines"])
    assert [claim.job.id for claim in claims.claim(criteria)] == [plain.id]
    assert claims.claim(criteria) == []
    ready = ClaimCriteria(warm=["warm"], ready=["warm", "controlnet:lines"])
    assert [claim.job.id for claim in claims.claim(ready)] == [controlled.id]


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
    assert claims.claim(ClaimCriteria(ready=["warm", "lora:ink"]))[0].job.id == styled.id


@pytest.mark.parametrize("deferred", [[], ["lora:ink"]])
def test_no_job_joins_a_call_with_a_lora_that_is_not_ready_and_a_peek_names_it(
    queue: JobQueue, make_claims: MakeClaims, deferred: list[str]
) -> None:
    plain = queue.submit(parameters(model="warm"))
    styled = queue.submit(parameters(model="warm", loras=(LoraParameters(name="ink"),)))
    claims = make_claims()
    together = ClaimCriteria(ready=["warm"], deferred=deferred, max_images=4, batching=True)
    assert claims.peek(together).unready == ["lora:ink"]
    assert [claim.job.id for claim in claims.claim(together)] == [plain.id]
    assert queue.fetch(styled.id).state is JobState.QUEUED


def test_a_job_is_found_behind_many_that_wait_for_a_download(queue: JobQueue, make_claims: MakeClaims) -> None:
    for _ in range(80):
        queue.submit(parameters(loras=(LoraParameters(name="ink"),)))
    plain = queue.submit(parameters())
    queue.cancel(queue.submit(parameters()).id)
    claims = make_claims()
    criteria = ClaimCriteria(deferred=["lora:ink"])
    assert [claim.job.id for claim in claims.claim(criteria)] == [plain.id]
    assert claims.claim(criteria) == []


def test_ended_jobs_behind_a_deferred_job_leave_the_queue(queue: JobQueue, make_claims: MakeClaims) -> None:
    controlled = queue.submit(parameters(controls=(LINES,)))
    cancelled = queue.submit(parameters())
    queue.cancel(cancelled.id)
    assert make_claims().claim(ClaimCriteria(deferred=["controlnet:lines"])) == []
    assert queue.connection.lrange(f"rq:queue:{controlled.queue}", 0, -1) == [controlled.id]
    assert make_claims().claim(ClaimCriteria())[0].job.id == controlled.id


def test_no_two_workers_claim_the_same_job(queue: JobQueue, make_claims: MakeClaims) -> None:
    count = 60
    taken: list[str] = []
    for _ in range(count):
        queue.submit(parameters(batchable=False))

    def take(worker: str) -> None:
        claims = make_claims(worker)
        while claimed := claims.claim(ClaimCriteria()):
            taken.extend(claim.job.id for claim in claimed)

    threads = [threading.Thread(target=take, args=(f"worker-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == count
