"""Submitting, fetching and cancelling jobs on a real Redis, which is also killed and restarted."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.utils import utcparse

from cli.supervisor.redis_server import RedisServer
from contracts.errors import Conflict, NotFound, Unavailable
from contracts.jobs.records import JobState
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.queue.new_job import RUN_FUNCTION
from contracts.redis import keys
from contracts.requests.schema import Priority
from contracts.settings import SharedSettings
from tests.support.claims import MakeClaims, take
from tests.support.parameters import parameters
from tests.support.worker_reports import report_worker


def test_a_submitted_job_is_read_back_as_it_was_sent(queue: JobQueue) -> None:
    job = queue.submit(parameters(seed=0), priority=Priority.HIGH, metadata={"team": "ads"}, deadline_seconds=60)
    found = queue.fetch(job.id)
    assert found.model_dump() == job.model_dump()
    assert found.parameters.seed == 0
    assert found.deadline_at == found.created_at + 60


def test_rq_reads_the_job_with_its_function_and_without_pickle(queue: JobQueue, rq_connection: Redis) -> None:
    job = queue.submit(parameters())
    assert Queue(job.queue, connection=rq_connection, serializer=JSONSerializer).job_ids == [job.id]
    rq_job = Job.fetch(job.id, connection=rq_connection, serializer=JSONSerializer)
    assert (rq_job.func_name, rq_job.args) == (RUN_FUNCTION, [job.id])


def test_the_rq_job_has_the_fields_that_the_installed_rq_gives_it(queue: JobQueue, rq_connection: Redis) -> None:
    sent = queue.submit(parameters())
    written = cast("dict[bytes, bytes]", rq_connection.hgetall(f"rq:job:{sent.id}"))
    job = Job.create(
        RUN_FUNCTION, args=[sent.id], id=sent.id, status=JobStatus.QUEUED, timeout=-1, origin=sent.queue,
        connection=rq_connection, serializer=JSONSerializer, description="txt2img on shapes-sdxl",
    )  # fmt: skip
    job.created_at = job.enqueued_at = utcparse(str(written[b"created_at"], "ascii"))
    expected = {name.encode(): str(value).encode() for name, value in job.to_dict().items() if name != "data"}
    assert written == expected | {b"status": b"queued", b"data": job.data}


def test_an_unknown_job_is_not_found(queue: JobQueue) -> None:
    with pytest.raises(NotFound):
        queue.fetch("nothing")
    with pytest.raises(NotFound):
        queue.cancel("nothing")


def test_a_waiting_job_is_cancelled_at_once_and_cancelling_again_changes_nothing(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    job = queue.submit(parameters())
    assert queue.cancel(job.id).state is JobState.CANCELLED
    assert queue.cancel(job.id).state is JobState.CANCELLED
    assert make_claims().claim(ClaimCriteria()) is None
    assert queue.connection.llen(f"rq:queue:{job.queue}") == 0


def test_cancelling_a_running_job_sets_a_flag_for_its_worker(queue: JobQueue, make_claims: MakeClaims) -> None:
    job = queue.submit(parameters())
    make_claims().claim(ClaimCriteria())
    marked = queue.cancel(job.id)
    assert marked.state is JobState.RUNNING
    assert marked.cancel_requested


def test_a_completed_job_cannot_be_cancelled(queue: JobQueue, make_claims: MakeClaims) -> None:
    job = queue.submit(parameters())
    claims = make_claims()
    claims.finish(take(claims), JobState.COMPLETED, images=[])
    with pytest.raises(Conflict):
        queue.cancel(job.id)


def test_position_counts_the_jobs_ahead(queue: JobQueue, make_claims: MakeClaims) -> None:
    jobs = [queue.submit(parameters(batchable=False)) for _ in range(3)]

    def ahead() -> list[int | None]:
        found = [queue.eta.position(job) for job in jobs]
        return [None if place is None else place.ahead for place in found]

    assert ahead() == [0, 1, 2]
    report_worker(queue, "first", None)
    make_claims("first").claim(ClaimCriteria())
    assert ahead() == [None, 0, 1]


def test_an_accepted_job_survives_a_killed_redis(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, fsync="always")
    server.start()
    queue = JobQueue(SharedSettings(redis_url=server.url, data=tmp_path))
    try:
        job = queue.submit(parameters())
        server.kill()
        with pytest.raises(Unavailable):
            queue.fetch(job.id)
        with pytest.raises(Unavailable):
            queue.submit(parameters())
        server.start()
        assert queue.fetch(job.id).model_dump() == job.model_dump()
    finally:
        queue.close()
        server.stop()


@pytest.mark.parametrize(
    "webhook", ["no JSON", "[]", "null", '"text"', '{"events": 5}', '{"events": ["cancelled"]}', '{"site": "s"}']
)
def test_a_job_whose_webhook_is_unreadable_ends_like_any_other(queue: JobQueue, webhook: str) -> None:
    job = queue.submit(parameters())
    for field, text in (("webhook", webhook), ("deliveries", "no JSON")):
        queue.connection.hset(keys.JOB + job.id, field, text)

    queue._scripts.run("cancel", id=job.id, ttl_seconds=60)

    assert queue.connection.hget(keys.JOB + job.id, "state") == "cancelled"
    assert queue.connection.zscore(keys.EXPIRY, job.id) is not None
    assert queue.connection.llen(f"rq:queue:{job.queue}") == 0
