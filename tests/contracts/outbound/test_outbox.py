"""Webhook messages in Redis: created in the step that ends a job, and leased to one dispatcher."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobError, JobState, Progress, WebhookRecord
from contracts.leases.claim import Claim
from contracts.leases.claims import Claims
from contracts.outbound.outbox import Message, Outbox, Outcome
from contracts.queue.client import JobQueue
from contracts.requests.schema import WebhookEvent
from contracts.settings import QueueSettings
from tests.support.claims import reports, take
from tests.support.parameters import parameters

ALL = tuple(WebhookEvent)


def hook(site: str = "a.example:443", events: tuple[WebhookEvent, ...] = ALL) -> WebhookRecord:
    return WebhookRecord(url=f"https://{site}/", events=events, site=site, base="https://images.example")


@pytest.fixture
def outbox(queue: JobQueue) -> Outbox:
    return Outbox(queue.connection, "dispatcher", lease_seconds=30)


@pytest.fixture
def claims(queue: JobQueue) -> Claims:
    return Claims(queue.connection, QueueSettings(max_attempts=1), "worker", ttl_seconds=3600)


def take_all(outbox: Outbox) -> list[Message]:
    messages = []
    while message := outbox.claim(()):
        messages.append(message)
    return messages


def claim(claims: Claims) -> Claim:
    return take(claims)


def expire(queue: JobQueue, index: str, id: str) -> None:
    queue.connection.zadd(f"darkroom:{index}", {id: 1})


def complete(queue: JobQueue, claims: Claims, id: str) -> None:
    assert claims.finish(claim(claims), JobState.COMPLETED)


def fail(queue: JobQueue, claims: Claims, id: str) -> None:
    assert claims.fail(claim(claims), JobError(code=FailureCode.INTERNAL, message="x", retryable=True))


def cancel_waiting(queue: JobQueue, claims: Claims, id: str) -> None:
    queue.cancel(id)


def cancel_running(queue: JobQueue, claims: Claims, id: str) -> None:
    running = claim(claims)
    queue.cancel(id)
    assert claims.advance(reports(running, progress=Progress())) == ["cancel"]
    assert claims.finish(running, JobState.CANCELLED)


def cancel_and_lose(queue: JobQueue, claims: Claims, id: str) -> None:
    claim(claims)
    queue.cancel(id)
    expire(queue, "leases", id)
    claims.reap()


def lose(queue: JobQueue, claims: Claims, id: str) -> None:
    claim(claims)
    expire(queue, "leases", id)
    claims.reap()


def miss_the_deadline(queue: JobQueue, claims: Claims, id: str) -> None:
    expire(queue, "deadlines", id)
    claims.reap()


ENDINGS: dict[Callable[[JobQueue, Claims, str], None], str] = {
    complete: "completed", fail: "failed", lose: "failed", miss_the_deadline: "failed",
    cancel_waiting: "cancelled", cancel_running: "cancelled", cancel_and_lose: "cancelled",
}  # fmt: skip


@pytest.mark.parametrize("end", ENDINGS)
def test_every_way_a_job_can_end_sends_one_message(
    queue: JobQueue, claims: Claims, outbox: Outbox, end: Callable[[JobQueue, Claims, str], None]
) -> None:
    ends = (WebhookEvent.COMPLETED, WebhookEvent.FAILED, WebhookEvent.CANCELLED)
    id = queue.submit(parameters(), webhook=hook(events=ends), deadline_seconds=1000).id
    assert take_all(outbox) == []

    end(queue, claims, id)

    (message,) = take_all(outbox)
    job = message.read_job()
    assert (message.event, job.state.value, job.id) == (ENDINGS[end], ENDINGS[end], id)
    assert job.finished_at is not None
    assert job.model_copy(update={"deliveries": {}}) == queue.fetch(id).model_copy(update={"deliveries": {}})


def test_each_message_has_the_state_of_the_job_at_that_event(
    queue: JobQueue, claims: Claims, outbox: Outbox
) -> None:
    queue.submit(parameters(), webhook=hook())
    running = claim(claims)
    claims.advance(reports(running, progress=Progress()))
    claims.release(running)
    claims.finish(claim(claims), JobState.COMPLETED)

    messages = take_all(outbox)

    assert [message.event for message in messages] == ["queued", "started", "queued", "started", "completed"]
    assert [message.read_job().state.value for message in messages] == [
        "queued",
        "running",
        "queued",
        "running",
        "completed",
    ]
    assert len({message.id for message in messages}) == 5


def test_a_job_without_a_webhook_makes_no_message(queue: JobQueue, claims: Claims, outbox: Outbox) -> None:
    queue.submit(parameters())
    claims.finish(claim(claims), JobState.COMPLETED)

    assert take_all(outbox) == []


def test_receivers_take_turns_even_if_many_messages_wait_for_one(queue: JobQueue, outbox: Outbox) -> None:
    events = (WebhookEvent.QUEUED,)
    for site in ["a:443"] * 5 + ["b:443", "c:443", "b:443"]:
        queue.submit(parameters(), webhook=hook(site, events))

    assert [message.site for message in take_all(outbox)] == ["a:443", "b:443", "c:443", "a:443", "b:443"] + [
        "a:443"
    ] * 3


def test_a_receiver_at_its_limit_is_skipped(queue: JobQueue, outbox: Outbox) -> None:
    for site in ("a:443", "b:443", "c:443"):
        queue.submit(parameters(), webhook=hook(site, (WebhookEvent.QUEUED,)))

    message = outbox.claim(["a:443", "b:443"])

    assert message is not None
    assert message.site == "c:443"
    assert outbox.claim(["a:443", "b:443"]) is None


def test_a_dispatcher_that_lost_its_lease_writes_nothing(queue: JobQueue, outbox: Outbox) -> None:
    id = queue.submit(parameters(), webhook=hook(events=(WebhookEvent.QUEUED,))).id
    slow = outbox.claim(())
    assert slow is not None
    assert outbox.claim(()) is None
    expire(queue, "webhooks:leases", slow.id)
    quick = outbox.claim(())

    assert quick is not None
    assert quick.id == slow.id
    assert not outbox.finish(slow, Outcome("given_up", error="x"))
    assert outbox.finish(quick, Outcome("delivered", 200))
    assert not outbox.finish(quick, Outcome("again", pause_seconds=0))
    assert [delivery.status for delivery in queue.fetch(id).deliveries.values()] == ["delivered"]
    assert outbox.claim(()) is None


def test_a_message_is_retried_only_when_it_is_due(queue: JobQueue, outbox: Outbox) -> None:
    queue.submit(parameters(), webhook=hook(events=(WebhookEvent.QUEUED,)))
    first = outbox.claim(())
    assert first is not None
    outbox.finish(first, Outcome("again", 500, "x", pause_seconds=1000))
    assert outbox.claim(()) is None
    expire(queue, "webhooks:due", first.id)

    again = outbox.claim(())

    assert again is not None
    assert (again.id, again.attempts) == (first.id, 1)
