"""What a call costs Redis does not depend on how many jobs wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts.jobs.failures import FailureCode
from contracts.jobs.preparations import FETCHING, Preparation
from contracts.jobs.records import JobError, JobState
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.queue.listing import Filter, list_jobs
from contracts.redis import keys
from contracts.requests.entry_parameters import LoraParameters
from tests.support.claims import MakeClaims, take
from tests.support.parameters import parameters

INK = (LoraParameters(name="ink"),)
HALF = Preparation(name="lora:ink", state=FETCHING, bytes_done=5, bytes_total=10)
GATED = JobError.of(FailureCode.LORA_MISSING, "org/ink is gated")
FEW, MANY = 100, 300


def submit(queue: JobQueue, count: int, owner: str = "one", **changes: object) -> list[str]:
    return [queue.submit(parameters(**changes), owner=owner).id for _ in range(count)]


def commands(queue: JobQueue, call: Callable[[], object]) -> int:
    """The number of commands that Redis runs for a call, those of scripts included."""

    def run_so_far() -> int:
        found = queue.connection.info("commandstats")
        return sum(int(row["calls"]) for row in found.values())

    before = run_so_far()
    call()
    return run_so_far() - before


def test_no_call_costs_more_where_more_jobs_wait(queue: JobQueue, make_claims: MakeClaims) -> None:
    claims = make_claims()
    waiting = claims.waiting_jobs()
    ids: list[str] = []
    calls: dict[str, Callable[[], object]] = {
        "submit": lambda: submit(queue, 1),
        "list": lambda: list_jobs(queue, "one", Filter(), 20),
        "cancel": lambda: queue.cancel(ids.pop(len(ids) // 2)),
        "reap": claims.reap,
        "peek": lambda: claims.peek(ClaimCriteria()),
        "claim": lambda: claims.claim(ClaimCriteria()),
        "claim nothing": lambda: claims.claim(ClaimCriteria(deferred=["shapes-sdxl"])),
        "does any need an adapter": lambda: waiting.need("lora:ink"),
        "tell those that need an adapter": lambda: waiting.tell(HALF),
        "end those that need an adapter": lambda: waiting.fail("lora:ink", GATED),
        "does any need a model": lambda: waiting.need("shapes-sdxl"),
    }
    for call in calls.values():  # the scripts are loaded at their first run
        ids += submit(queue, 3)
        call()

    ids += submit(queue, FEW)
    costs = {name: commands(queue, call) for name, call in calls.items()}
    ids += submit(queue, MANY)
    later = {name: commands(queue, call) for name, call in calls.items()}

    assert {name: cost for name, cost in later.items() if cost > costs[name] + 20} == {}


def test_a_list_of_which_few_jobs_match_reads_only_these(queue: JobQueue) -> None:
    ids = submit(queue, MANY)
    queue.cancel(ids[7])

    def sent_so_far() -> int:
        return int(queue.connection.info("stats")["total_net_output_bytes"])

    before = sent_so_far()
    once = sent_so_far() - before
    found = list_jobs(queue, "one", Filter(status=JobState.CANCELLED), 20)
    assert [job.id for job in found.jobs] == [ids[7]]
    assert sent_so_far() - before - 2 * once < 20 * MANY


@pytest.mark.parametrize("name", ["lora:ink", "shapes-sdxl"])
def test_of_very_many_jobs_that_need_something_all_end(
    queue: JobQueue, make_claims: MakeClaims, name: str
) -> None:
    hopeless = [*submit(queue, 130, loras=INK), *submit(queue, 20, owner="two", loras=INK)]
    other = submit(queue, 1, model="other")[0]
    waiting = make_claims().waiting_jobs()

    assert waiting.tell(Preparation(name=name, state=FETCHING)).needing == len(hopeless)
    assert sorted(waiting.fail(name, GATED)) == sorted(hopeless)

    assert {queue.fetch(id).state for id in hopeless} == {JobState.FAILED}
    assert take(make_claims()).job.id == other
    assert waiting.need(name) is False


@pytest.mark.parametrize("name", ["lora:ink", "shapes-sdxl"])
def test_jobs_that_an_earlier_release_queued_end_too(queue: JobQueue, make_claims: MakeClaims, name: str) -> None:
    ids = submit(queue, 3, loras=INK)
    queue.connection.delete(keys.NEEDED + "lora:ink", keys.NEEDED + "shapes-sdxl")
    claims = make_claims()

    assert claims.claim(ClaimCriteria(deferred=[name])) is None
    assert claims.waiting_jobs().fail(name, GATED) == ids


def test_a_job_leaves_the_indexes_of_what_it_needs_when_it_is_claimed_cancelled_or_ends(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    claimed, cancelled = submit(queue, 2, loras=INK)
    claims = make_claims()
    claim = take(claims)
    queue.cancel(cancelled)
    assert list(queue.connection.scan_iter(keys.NEEDED + "*")) == []

    claims.release(claim)
    assert queue.connection.zrange(keys.NEEDED + "lora:ink", 0, -1) == [claimed]
