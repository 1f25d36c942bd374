"""RQ's own tools: `rq info` shows our processes, `rq suspend` is obeyed, a stock worker loses no job."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from redis import Redis
from rq import Queue, SimpleWorker
from rq.cli.cli import main as rq_command
from rq.command import send_shutdown_command
from rq.job import Job as RqJob
from rq.serializers import DefaultSerializer, JSONSerializer
from rq.suspension import resume, suspend
from rq.worker import WorkerStatus

from contracts.jobs.records import JobState, WebhookRecord
from contracts.outbound.outbox import Outbox
from contracts.processes.rq_registration import RqRegistration
from contracts.queue.client import JobQueue
from contracts.requests.schema import WebhookEvent
from tests.support.claims import MakeClaims, take
from tests.support.dispatcher_process import dispatcher_process
from tests.support.parameters import parameters
from tests.support.waiting import wait_until


def rq_info(redis_url: str) -> str:
    """Run `rq info` and return its output; in this process, since a new one would import RQ each time."""
    result = CliRunner().invoke(rq_command, ["info", "--url", redis_url, "--raw"], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def states(redis_url: str) -> dict[str, str]:
    """Return the state of each worker that `rq info` lists, by name."""
    return dict(re.findall(r"^worker (\S+) \(.*\) (\w+) darkroom\.", rq_info(redis_url), re.MULTILINE))


def test_rq_info_shows_workers_dispatchers_and_queues(
    redis_url: str, rq_connection: Redis, queue: JobQueue
) -> None:
    job = queue.submit(parameters())
    with (
        RqRegistration(rq_connection, "a-worker") as registration,
        dispatcher_process(redis_url, DARKROOM_WEBHOOK_NAME="a-dispatcher"),
    ):
        registration.show(WorkerStatus.BUSY)
        wait_until(lambda: states(redis_url).get("a-dispatcher") == "idle")
        assert states(redis_url)["a-worker"] == "busy"
        assert f"queue {job.queue} 1" in rq_info(redis_url)
    assert "a-worker" not in states(redis_url)


def test_rq_suspend_is_obeyed_and_shown(redis_url: str, rq_connection: Redis) -> None:
    with RqRegistration(rq_connection, "a-worker") as registration:
        assert not registration.is_suspended
        suspend(rq_connection)
        assert registration.is_suspended
        assert states(redis_url) == {"a-worker": "suspended"}
        resume(rq_connection)
        assert not registration.is_suspended
        registration.show(WorkerStatus.IDLE)
        assert states(redis_url) == {"a-worker": "idle"}


def test_rqs_shutdown_command_ends_a_dispatcher(redis_url: str, rq_connection: Redis) -> None:
    with dispatcher_process(redis_url, DARKROOM_WEBHOOK_NAME="a-dispatcher") as process:
        wait_until(lambda: states(redis_url).get("a-dispatcher") == "idle")
        send_shutdown_command(rq_connection, "a-dispatcher")
        assert process.wait(timeout=60) == 0


def test_registration_keeps_the_timeout_of_the_connection(rq_connection: Redis) -> None:
    """RQ raises it to seven minutes; then a Redis that hangs would block the worker for that long."""
    with RqRegistration(rq_connection, "a-worker"):
        assert rq_connection.connection_pool.connection_kwargs["socket_timeout"] == 5


@pytest.mark.parametrize("serializer", [JSONSerializer, DefaultSerializer])
def test_a_stock_rq_worker_fails_a_job_with_a_clear_message_and_does_not_lose_it(
    serializer: type[JSONSerializer] | type[DefaultSerializer],
    queue: JobQueue,
    rq_connection: Redis,
    make_claims: MakeClaims,
) -> None:
    job = queue.submit(parameters())
    stock = SimpleWorker(
        [Queue(job.queue, connection=rq_connection, serializer=serializer)],
        connection=rq_connection,
        serializer=serializer,
    )
    stock.work(burst=True, logging_level="CRITICAL")
    assert queue.connection.llen(f"rq:queue:{job.queue}") == 0
    assert queue.connection.hget(f"rq:job:{job.id}", "status") == "failed"
    if serializer is JSONSerializer:
        result = RqJob.fetch(job.id, connection=rq_connection, serializer=serializer).latest_result()
        assert result is not None
        message = f"job {job.id} must be run by a Darkroom worker (python -m worker), not by a stock rq worker"
        assert message in str(result.exc_string)

    claims = make_claims()
    assert claims.reap() == (1, [])
    assert claims.reap() == (0, [])
    claim = take(claims)
    assert (claim.job.id, claim.job.attempts) == (job.id, 1)
    assert claims.finish(claim, JobState.COMPLETED, images=[])
    assert queue.connection.exists(f"rq:failed:{job.queue}") == 0


@pytest.mark.parametrize("serializer", [JSONSerializer, DefaultSerializer])
def test_a_stock_rq_worker_does_not_lose_a_webhook_message(
    serializer: type[JSONSerializer] | type[DefaultSerializer],
    queue: JobQueue,
    rq_connection: Redis,
    make_claims: MakeClaims,
) -> None:
    webhook = WebhookRecord(
        url="https://a/", events=(WebhookEvent.QUEUED,), site="a:443", base="https://images.example"
    )
    ids = [queue.submit(parameters(), webhook=webhook).id for _ in range(2)]
    (message, waiting) = (next(iter(queue.fetch(id).deliveries)) for id in ids)
    name = "darkroom:webhooks:a:443"
    stock = SimpleWorker(
        [Queue(name, connection=rq_connection, serializer=serializer)],
        connection=rq_connection,
        serializer=serializer,
    )
    stock.work(burst=True, max_jobs=1, logging_level="CRITICAL")
    assert queue.connection.hget(f"rq:job:{message}", "status") == "failed"
    # Both were queued a while ago.
    queue.connection.zadd("darkroom:webhooks:queued", {message: 1, waiting: 1})

    claims, outbox = make_claims(), Outbox(queue.connection, "dispatcher", 60)
    claims.reap()
    claims.reap()

    taken = [outbox.claim(()) for _ in range(3)]
    assert [found and found.id for found in taken] == [message, waiting, None]
    assert queue.connection.exists(f"rq:failed:{name}", "darkroom:webhooks:queued") == 0
