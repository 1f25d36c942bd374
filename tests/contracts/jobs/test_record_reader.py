"""Records of other releases: read where they can be, else one failed job and no error of the others."""

from __future__ import annotations

import json
from typing import cast

import pytest
from redis import Redis

from contracts.jobs.failures import FailureCode
from contracts.jobs.receipt import Receipt, Weights
from contracts.jobs.record_reader import UnreadableJob, read_record
from contracts.jobs.records import RECORD_VERSION, JobState, Progress, WebhookRecord
from contracts.outbound.outbox import Outbox
from contracts.queue.client import JobQueue
from contracts.queue.listing import Filter, list_jobs
from contracts.requests.schema import WebhookEvent
from contracts.storage import Storage
from contracts.uploads.retention import Retention
from tests.support.claims import MakeClaims, reports, take, take_all
from tests.support.parameters import parameters

WEBHOOK = WebhookRecord(url="https://a/", events=tuple(WebhookEvent), site="a:443", base="http://b")


def change(connection: Redis, id: str, **fields: str | None) -> None:
    """Write fields of a stored record as another release might; None removes one."""
    for name, text in fields.items():
        if text is None:
            connection.hdel(f"darkroom:job:{id}", name)
        else:
            connection.hset(f"darkroom:job:{id}", name, text)


def changed_parameters(**changes: object) -> str:
    """Stored parameters with some values replaced; None removes one."""
    stored = parameters().model_dump(mode="json", exclude_defaults=True) | changes
    return json.dumps({name: value for name, value in stored.items() if value is not None})


READABLE = [
    {"invented_later": "x", "parameters": changed_parameters(invented_later=1)},
    {"parameters": changed_parameters(batchable=None, output_quality=None)},
    {"version": None, "request_id": None, "attempts": None, "needs": None, "work": None, "adapters": None},
    {"priority": "urgent", "created_at": None, "num_images": None, "pixels": "many", "batch_key": None},
    {"metadata": "not JSON", "progress": "[1]", "webhook": "{", "deliveries": "7", "deadline_at": "soon"},
    {"webhook": '{"site": 1, "events": 2}', "needs": "[1]", "inputs": "[null]", "adapters": "[[]]"},
    {"state": None},
    {"state": "dreaming"},
]
UNREADABLE = [
    {"parameters": None},
    {"parameters": "not JSON"},
    {"parameters": changed_parameters(seed=None)},
    {"parameters": changed_parameters(task="dream")},
    {"parameters": changed_parameters(task="dream"), "model": None, "task": None, "owner": None, "queue": None},
    {"version": str(RECORD_VERSION + 1)},
    {"version": "two"},
]


@pytest.mark.parametrize("fields", READABLE)
def test_a_job_that_another_release_queued_runs(
    queue: JobQueue, make_claims: MakeClaims, fields: dict[str, str | None]
) -> None:
    job = queue.submit(parameters(), deadline_seconds=60)
    change(queue.connection, job.id, **fields)
    claims = make_claims()

    claim = take(claims)

    assert claim.job.id == job.id
    assert claim.job.parameters.prompt == "a red circle"
    assert claims.advance(reports(claim, progress=Progress(step=1, steps=2))) == ["on"]
    assert claims.finish(claim, JobState.COMPLETED, images=[]) is JobState.COMPLETED


@pytest.mark.parametrize("fields", UNREADABLE)
def test_a_job_that_cannot_be_read_fails_when_it_is_claimed_and_the_others_run(
    queue: JobQueue, make_claims: MakeClaims, fields: dict[str, str | None]
) -> None:
    first, unreadable, last = (queue.submit(parameters(), webhook=WEBHOOK) for _ in range(3))
    change(queue.connection, unreadable.id, **fields)

    claims = take_all(make_claims())

    assert {claim.job.id for claim in claims} == {first.id, last.id}
    failed = queue.fetch(unreadable.id)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert failed.error.code is FailureCode.UNREADABLE
    assert make_claims().reap() == (0, [])
    assert queue.connection.exists("darkroom:waiting:normal") == 0


@pytest.mark.parametrize("fields", [*UNREADABLE, {"state": "dreaming"}, {"state": None}])
def test_a_job_that_cannot_be_read_fails_when_it_is_looked_at_and_is_no_error_of_a_list(
    queue: JobQueue, storage: Storage, fields: dict[str, str | None]
) -> None:
    jobs = [queue.submit(parameters(), owner="me") for _ in range(3)]
    change(queue.connection, jobs[1].id, **fields)

    listed = list_jobs(queue, "me", Filter(), limit=10).jobs

    assert [record.id for record in listed] == [job.id for job in reversed(jobs)]
    assert [record.state for record in listed] == ["queued", "failed", "queued"]
    assert list_jobs(queue, "me", Filter(metadata={"k": "v"}), limit=10).jobs == []
    assert queue.connection.hget(f"darkroom:job:{jobs[1].id}", "state") == "failed"
    queue.delete(jobs[1].id)
    assert Retention(queue.connection, storage, 60).sweep() == 0


def test_a_waiting_job_that_cannot_be_read_can_be_cancelled_and_swept(queue: JobQueue, storage: Storage) -> None:
    cancelled, swept = (queue.submit(parameters()) for _ in range(2))
    for job in (cancelled, swept):
        change(queue.connection, job.id, parameters=None, queue=None, owner=None)

    assert queue.cancel(cancelled.id).state is JobState.CANCELLED
    assert queue.fetch(swept.id).state is JobState.FAILED
    for job in (cancelled, swept):
        change(queue.connection, job.id, expires_at="1")
        queue.connection.zadd("darkroom:expiry", {job.id: 1})

    assert Retention(queue.connection, storage, 60).sweep() == 2
    assert queue.connection.hget(f"darkroom:job:{swept.id}", "gone") == "expired"


def test_a_completed_job_whose_parameters_cannot_be_read_stays_completed(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    job = queue.submit(parameters())
    claim = take(make_claims())
    receipt = Receipt(parameters=parameters(), seeds=[0], model=Weights(id="m", sha256="0"))
    make_claims().complete(claim, [], receipt)
    change(queue.connection, job.id, parameters=None)

    record = queue.fetch(job.id)

    assert isinstance(record, UnreadableJob)
    assert (record.state, record.error, record.receipt) == (JobState.COMPLETED, None, None)


def test_a_job_that_runs_on_a_newer_worker_is_left_to_it(queue: JobQueue, make_claims: MakeClaims) -> None:
    job = queue.submit(parameters())
    claim = take(make_claims())
    change(queue.connection, job.id, version=str(RECORD_VERSION + 1))

    assert queue.fetch(job.id).state is JobState.RUNNING
    assert make_claims().finish(claim, JobState.COMPLETED, images=[]) is JobState.COMPLETED


def test_the_message_of_a_job_that_cannot_be_read_is_no_error_of_the_next(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    for number in range(2):
        queue.submit(
            parameters(seed=number), webhook=WebhookRecord(**WEBHOOK.model_dump() | {"site": f"{number}:1"})
        )
    outbox = Outbox(queue.connection, "dispatcher", 60)
    (first_message,) = cast("list[str]", queue.connection.lrange("rq:queue:darkroom:webhooks:0:1", 0, 0))
    queue.connection.hset(f"rq:job:{first_message}", mapping={"record": "not JSON", "attempts": 0})
    queue.connection.hdel(f"rq:job:{first_message}", "event", "sequence")

    first, second = outbox.claim(()), outbox.claim(())

    assert first is not None
    assert second is not None
    with pytest.raises(ValueError, match="cannot be read"):
        first.read_job()
    assert first.belongs_to == {"job_id": "", "request_id": ""}
    assert second.read_job().state is JobState.QUEUED


def test_a_receipt_is_stored_without_the_parameters_and_text_is_stored_once_as_utf_8(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    prompt = "雪" * 1000
    job = queue.submit(parameters(prompt=prompt), webhook=WEBHOOK)
    claim = take(make_claims())
    receipt = Receipt(parameters=claim.job.parameters, seeds=[0], model=Weights(id="m", sha256="0"))
    make_claims().complete(claim, [], receipt)

    stored = [
        value
        for key in queue.connection.scan_iter("*")
        if queue.connection.type(key) == "hash"
        for value in cast("list[str]", queue.connection.hvals(key))
    ]
    assert sum(value.count("雪") for value in stored) == len(prompt)
    assert not [value for value in stored if "\\u" in value]
    assert queue.fetch(job.id).receipt == receipt
    message = Outbox(queue.connection, "dispatcher", 60).claim(())
    assert message is not None
    assert message.read_job().parameters.prompt == prompt


def test_a_message_survives_the_removal_of_its_job(queue: JobQueue) -> None:
    job = queue.submit(parameters(), webhook=WEBHOOK, metadata={"k": "v"})
    queue.cancel(job.id)
    queue.delete(job.id)

    outbox = Outbox(queue.connection, "dispatcher", 60)
    messages = [outbox.claim(()), outbox.claim(())]

    read = [message.read_job() for message in messages if message is not None]
    assert [record.state for record in read] == [JobState.QUEUED, JobState.CANCELLED]
    assert [record.metadata for record in read] == [{"k": "v"}] * 2
    assert [message.sequence for message in messages if message is not None] == [1, 2]


def test_a_missing_receipt_or_an_unknown_field_of_it_is_no_error() -> None:
    fields = {"id": "x", "state": "completed", "parameters": changed_parameters(), "owner": "me"}
    receipt = {"seeds": [1], "model": {"id": "m", "sha256": "0"}, "invented_later": 1}

    assert read_record({**fields, "receipt": json.dumps(receipt)}).receipt is not None
    assert read_record({**fields, "receipt": '{"seeds": "?"}'}).receipt is None
    assert read_record({**fields, "receipt": "[]"}).state is JobState.COMPLETED
