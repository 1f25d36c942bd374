"""A worker takes no job from one that has fewer in flight, on a real Redis without a worker process."""

from __future__ import annotations

import json

import pytest

from contracts.jobs.records import JobState
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria, MustRunAlone, NotReady
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.requests.entry_parameters import LoraParameters
from contracts.requests.schema import Priority
from tests.support.claims import MakeClaims, become_idle, shift_idle_times, take
from tests.support.parameters import parameters

BUSY = ClaimCriteria(in_flight=1)
MODEL = parameters().model


def warm_with(in_flight: int) -> ClaimCriteria:
    """The criteria of a worker whose model is warm, and that has so many jobs."""
    room = dict.fromkeys(("high", "normal", "low"), 16 - in_flight)
    return ClaimCriteria(warm=[MODEL], in_flight=in_flight, room=room)


STYLED = parameters(loras=(LoraParameters(name="ink"),))


def test_a_busy_worker_leaves_a_job_to_an_idle_one(queue: JobQueue, make_claims: MakeClaims) -> None:
    busy, idle = make_claims("busy"), make_claims("idle")
    become_idle(queue, idle)
    first = queue.submit(parameters())

    assert busy.claim(BUSY) is None
    assert take(idle).job.id == first.id

    second = queue.submit(parameters())
    assert take(busy, BUSY).job.id == second.id  # the other one is idle no longer


def test_a_busy_worker_takes_jobs_for_which_the_idle_ones_are_too_few(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    busy = make_claims("busy")
    for name in ("a", "b"):
        become_idle(queue, make_claims(name))
    ids = [queue.submit(parameters(), owner=f"owner-{number}").id for number in range(3)]

    assert take(busy, BUSY).job.id == ids[0]
    assert busy.claim(BUSY) is None
    assert [take(make_claims(name)).job.id for name in ("a", "b")] == ids[1:]


def test_jobs_are_shared_equally_by_workers_whose_models_are_warm(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    """However quickly one of them claims: it claims all that it gets before the slow one asks again."""
    quick, slow = make_claims("quick"), make_claims("slow")
    for number in range(12):
        queue.submit(parameters(), owner=f"owner-{number % 3}")
    counts = {"quick": 0, "slow": 0}

    def claim(name: str, claims: Claims) -> bool:
        found = claims.claim(warm_with(counts[name]))
        counts[name] += found is not None
        return found is not None

    assert claim("slow", slow)
    while claim("quick", quick):
        pass
    assert counts == {"quick": 6, "slow": 1}
    while claim("slow", slow):
        pass
    assert counts == {"quick": 6, "slow": 6}

    queue.submit(parameters())
    assert claim("quick", quick)  # as many as the other has


def test_a_busy_worker_leaves_nothing_to_one_that_would_have_to_load_the_model_or_has_no_room(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    busy = make_claims("busy")
    become_idle(queue, make_claims("cold"), ClaimCriteria(warm=["other"], in_flight=1))
    become_idle(queue, make_claims("full"), ClaimCriteria(warm=[MODEL], in_flight=1, room={"high": 1}))
    job = queue.submit(parameters())
    assert take(busy, warm_with(5)).job.id == job.id


def test_a_claim_leaves_no_more_than_thirty_two_jobs_to_others(queue: JobQueue, make_claims: MakeClaims) -> None:
    """Each is looked up, and those before it: with no limit, a deep queue would keep Redis busy."""
    busy = make_claims("busy")
    room = dict.fromkeys(("high", "normal", "low"), 100)
    become_idle(queue, make_claims("idle"), ClaimCriteria(warm=[MODEL], room=room))
    for _ in range(33):
        queue.submit(parameters())
    criteria = ClaimCriteria(warm=[MODEL], in_flight=99, room=room)
    take(busy, criteria)
    assert busy.claim(criteria) is None


def test_a_worker_without_jobs_of_its_own_leaves_none_to_others(queue: JobQueue, make_claims: MakeClaims) -> None:
    become_idle(queue, make_claims("idle"))
    job = queue.submit(parameters())
    assert take(make_claims("also-idle")).job.id == job.id


def test_an_idle_worker_that_has_died_keeps_jobs_from_others_for_a_few_seconds_only(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    busy = make_claims("busy")
    become_idle(queue, make_claims("dead"))
    job = queue.submit(parameters())
    assert busy.claim(BUSY) is None

    shift_idle_times(queue, -10_000)

    assert take(busy, BUSY).job.id == job.id
    assert queue.connection.hkeys(keys.CLAIMERS) == ["busy"]


def test_a_worker_counts_as_idle_for_a_few_seconds(queue: JobQueue, make_claims: MakeClaims) -> None:
    began = queue.now()
    assert make_claims().claim(ClaimCriteria()) is None
    (entry,) = queue.connection.hvals(keys.CLAIMERS)
    assert began + 2 < json.loads(entry)["expires_at"] < queue.now() + 5


def test_entries_of_dead_workers_do_not_pile_up_where_all_workers_are_idle(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    for number in range(3):
        become_idle(queue, make_claims(f"dead-{number}"))
    shift_idle_times(queue, -10_000)
    become_idle(queue, make_claims("alive"))
    assert queue.connection.hkeys(keys.CLAIMERS) == ["alive"]


def test_a_worker_that_prepares_files_for_the_next_job_is_not_idle(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    preparing, busy = make_claims("preparing"), make_claims("busy")
    become_idle(queue, preparing)
    job = queue.submit(parameters())
    with pytest.raises(NotReady):
        preparing.claim(ClaimCriteria(ready=[]))
    assert take(busy, BUSY).job.id == job.id


def test_a_busy_worker_takes_a_job_that_no_idle_worker_can_take(queue: JobQueue, make_claims: MakeClaims) -> None:
    busy, idle = make_claims("busy"), make_claims("idle")
    styled = queue.submit(STYLED)
    become_idle(queue, idle, ClaimCriteria(deferred=["lora:ink"]))
    assert take(busy, BUSY).job.id == styled.id

    queue.submit(parameters())
    assert busy.claim(BUSY) is None


def test_jobs_that_a_busy_worker_could_not_take_do_not_count(queue: JobQueue, make_claims: MakeClaims) -> None:
    busy, idle = make_claims("busy"), make_claims("idle")
    become_idle(queue, idle)
    for _ in range(3):
        queue.submit(STYLED)
        queue.submit(parameters(model="other"))
        queue.submit(parameters(), priority=Priority.LOW)
    plain = queue.submit(parameters())
    criteria = ClaimCriteria(deferred=["lora:ink", "other"], room={"high": 1, "normal": 1}, in_flight=1)

    assert busy.claim(criteria) is None

    assert queue.fetch(plain.id).state is JobState.QUEUED
    assert take(make_claims("third"), ClaimCriteria(deferred=["lora:ink", "other"])).job.id == plain.id


def test_a_busy_worker_leaves_a_job_that_must_run_alone_to_an_idle_one_and_takes_the_next(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    busy, idle = make_claims("busy"), make_claims("idle")
    suspect = queue.submit(parameters())
    busy.release(take(busy), device_failed=True)
    with pytest.raises(MustRunAlone):
        busy.claim(BUSY)
    become_idle(queue, idle, ClaimCriteria(room={"high": 1}))
    other = queue.submit(parameters())

    assert take(busy, BUSY).job.id == other.id
    assert busy.claim(BUSY) is None
    assert take(idle).job.id == suspect.id
