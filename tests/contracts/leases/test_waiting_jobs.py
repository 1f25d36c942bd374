"""Jobs that wait for files are told how their preparation goes on, and end where they wait in vain."""

from __future__ import annotations

import pytest

from contracts.jobs.events import read_events
from contracts.jobs.failures import FailureCode
from contracts.jobs.preparations import FETCHING, READY, RETRYING, Preparation
from contracts.jobs.records import JobError, JobState
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.requests.entry_parameters import ControlParameters, LoraParameters
from contracts.requests.schema import Priority
from tests.support.claims import MakeClaims, take
from tests.support.parameters import parameters

INK = (LoraParameters(name="ink"),)
HALF = Preparation(
    name="lora:ink", state=FETCHING, bytes_done=5, bytes_total=10, bytes_per_second=1.0, remaining_seconds=5.0
)
AWAY = Preparation(name="lora:ink", state=RETRYING, message="the hub cannot be reached", retry_seconds=2.0)
GATED = JobError.of(FailureCode.LORA_MISSING, "org/ink is gated")
EXPIRED = JobError.of(FailureCode.FILES_UNAVAILABLE, "lora:ink could not be downloaded for 60 s")


def told(queue: JobQueue, id: str) -> list[dict[str, object]]:
    return [event.data for event in read_events(queue.connection, id) if event.kind == "preparing"]


def test_jobs_that_need_a_file_are_told_of_its_download_and_no_others(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    first = queue.submit(parameters(loras=INK)).id
    second = queue.submit(parameters(model="other", loras=INK), owner="else", priority=Priority.LOW).id
    plain = queue.submit(parameters()).id

    heard = make_claims().waiting_jobs().tell(HALF)
    assert (heard.needing, heard.ended, set(heard.others)) == (2, [], {"shapes-sdxl", "other"})
    assert [queue.fetch(id).preparing for id in (first, second, plain)] == [HALF, HALF, None]
    assert told(queue, first) == told(queue, second) == [HALF.model_dump(exclude_defaults=True)]
    assert told(queue, plain) == []


def test_a_job_whose_files_are_ready_waits_for_none_any_more(queue: JobQueue, make_claims: MakeClaims) -> None:
    id = queue.submit(parameters(loras=INK)).id
    jobs = make_claims().waiting_jobs()
    jobs.tell(HALF)
    jobs.tell(Preparation(name="lora:ink", state=READY))
    assert queue.fetch(id).preparing is None
    assert [event["state"] for event in told(queue, id)] == ["fetching", "ready"]


def test_a_started_job_waits_for_no_files(queue: JobQueue, make_claims: MakeClaims) -> None:
    id = queue.submit(parameters(loras=INK)).id
    claims = make_claims()
    claims.waiting_jobs().tell(HALF)
    claims.claim(ClaimCriteria())
    assert queue.fetch(id).preparing is None
    assert claims.waiting_jobs().tell(HALF) == (0, [], [])


def test_jobs_that_need_what_cannot_be_had_end_with_the_reason(queue: JobQueue, make_claims: MakeClaims) -> None:
    hopeless = {queue.submit(parameters(loras=INK), owner=owner).id for owner in ("one", "two")}
    plain = queue.submit(parameters()).id
    claims = make_claims()

    assert set(claims.waiting_jobs().fail("lora:ink", GATED)) == hopeless
    for id in hopeless:
        record = queue.fetch(id)
        assert (record.state, record.error, record.attempts) == (JobState.FAILED, GATED, 0)
        assert read_events(queue.connection, id)[-1].kind == "failed"
    assert take(claims).job.id == plain


def test_a_model_and_a_controlnet_of_one_name_are_two_things(queue: JobQueue, make_claims: MakeClaims) -> None:
    control = (ControlParameters(controlnet="shapes", image="inputs/c.png"),)
    controlled = queue.submit(parameters(controls=control)).id
    model = queue.submit(parameters(model="shapes")).id
    jobs = make_claims().waiting_jobs()
    assert jobs.fail("controlnet:shapes", GATED) == [controlled]
    assert jobs.fail("shapes", GATED) == [model]


@pytest.mark.parametrize(("limit_seconds", "state"), [(60.0, JobState.QUEUED), (0.0, JobState.FAILED)])
def test_a_job_waits_for_another_attempt_until_the_limit(
    queue: JobQueue, make_claims: MakeClaims, limit_seconds: float, state: JobState
) -> None:
    id = queue.submit(parameters(loras=INK)).id
    jobs = make_claims().waiting_jobs()
    jobs.tell(HALF)
    jobs.tell(AWAY, limit_seconds=limit_seconds)
    assert queue.fetch(id).preparing == AWAY
    jobs.tell(AWAY, limit_seconds=limit_seconds, expired=EXPIRED)
    record = queue.fetch(id)
    assert (record.state, record.error) == (state, EXPIRED if state is JobState.FAILED else None)


def test_a_job_for_which_another_worker_downloads_is_left_to_that_worker(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    id = queue.submit(parameters(loras=INK)).id
    first, second = make_claims("first").waiting_jobs(), make_claims("second").waiting_jobs()
    first.tell(HALF)
    assert second.tell(AWAY, limit_seconds=0, expired=EXPIRED) == (1, [], [])
    assert second.fail("lora:ink", GATED) == []
    assert queue.fetch(id).preparing == HALF
    first.tell(AWAY)
    assert second.fail("lora:ink", GATED) == [id]


def test_of_many_jobs_a_few_are_told_of_each_step_of_a_download(queue: JobQueue, make_claims: MakeClaims) -> None:
    ids = [queue.submit(parameters(loras=INK)).id for _ in range(70)]
    make_claims().waiting_jobs().tell(HALF, to_all=False)
    assert [queue.fetch(id).preparing for id in ids] == [HALF] * 64 + [None] * 6
