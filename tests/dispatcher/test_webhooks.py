"""Webhooks from the request to a real receiver: signed, retried, given up, and not lost if a process is killed."""

from __future__ import annotations

import json
import signal
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from redis import Redis
from rq.job import Job as RqJob
from rq.registry import ScheduledJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from standardwebhooks import Webhook, WebhookVerificationError

from contracts.auth.api_keys import ApiKeyStore
from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobError
from contracts.outbound.signing import Secret
from contracts.queue.client import JobQueue
from dispatcher.settings import WebhookSettings
from tests.support.dispatcher_process import (
    LOCAL_SECRET,
    PAUSES_SECONDS,
    SECRET,
    SubmitWithWebhook,
    dispatcher_process,
)
from tests.support.forked_programs import ForkedProgram
from tests.support.receiver import Received, Receiver, Reply, receiving
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("client")


def verified(message: Received) -> dict[str, Any]:
    """Verify a message with the reference library and return its body."""
    body: dict[str, Any] = Webhook(LOCAL_SECRET).verify(message.body, dict(message.headers))
    return body


def deliveries_of(client: TestClient, id: str) -> list[dict[str, Any]]:
    deliveries: list[dict[str, Any]] = client.get(f"/v1/jobs/{id}").json()["webhook"]["deliveries"]
    return deliveries


def is_over(client: TestClient, id: str) -> bool:
    deliveries = deliveries_of(client, id)
    return bool(deliveries) and all(delivery["status"] != "pending" for delivery in deliveries)


def test_a_message_is_signed_with_the_secret_of_the_jobs_owner(
    client: TestClient,
    queue: JobQueue,
    receiver: Receiver,
    dispatcher: ForkedProgram,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    tokens = {name: ApiKeyStore(queue.connection).create(name, name)[1] for name in ("ann", "bob")}
    for name, token in tokens.items():
        client.headers["Authorization"] = f"Bearer {token}"
        id = submit_with_webhook(f"{receiver.url}/{name}")["id"]
        assert client.post(f"/v1/jobs/{id}/cancel").status_code == 200
    secret = Secret.read(SECRET)
    for name, other in (("ann", "bob"), ("bob", "ann")):
        (message,) = receiver.wait_for(f"/{name}")
        Webhook(secret.derive(name).write()).verify(message.body, dict(message.headers))
        for wrong in (secret, secret.derive(other)):
            with pytest.raises(WebhookVerificationError):
                Webhook(wrong.write()).verify(message.body, dict(message.headers))


def test_a_completed_job_is_delivered_signed_and_as_the_api_shows_it(
    client: TestClient,
    worker: ScriptedWorker,
    receiver: Receiver,
    dispatcher: ForkedProgram,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    id = submit_with_webhook(f"{receiver.url}/hook?a=b", response_format="b64_json", metadata={"k": "v"})["id"]
    worker.complete(worker.claim())

    (message,) = receiver.wait_for("/hook")
    wait_until(lambda: is_over(client, id))

    shown = client.get(f"/v1/jobs/{id}").json()
    (delivery,) = shown["webhook"].pop("deliveries")
    body = verified(message)
    assert body["webhook"].pop("deliveries") == []
    assert "b64_json" in shown["images"][0]
    del shown["images"][0]["b64_json"]
    assert body == shown
    assert (body["status"], body["links"]["self"]) == ("completed", f"http://testserver/v1/jobs/{id}")
    assert message.path == "/hook?a=b"
    assert message.headers["host"] == receiver.url.removeprefix("http://")
    assert message.headers["content-type"] == "application/json"
    assert message.headers["darkroom-event"] == "completed"
    assert delivery["id"] == message.headers["webhook-id"]
    assert (delivery["status"], delivery["attempts"], delivery["status_code"]) == ("delivered", 1, 200)


def test_a_forged_or_changed_message_fails_verification(
    worker: ScriptedWorker,
    receiver: Receiver,
    dispatcher: ForkedProgram,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    submit_with_webhook(f"{receiver.url}/hook")
    worker.complete(worker.claim())
    (message,) = receiver.wait_for("/hook")

    forged = Received(message.path, message.headers, message.body.replace(b"completed", b"cancelled", 1))
    with pytest.raises(Exception, match="No matching signature"):
        verified(forged)


def test_each_requested_event_is_delivered_once(
    client: TestClient,
    worker: ScriptedWorker,
    receiver: Receiver,
    dispatcher: ForkedProgram,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    id = submit_with_webhook(f"{receiver.url}/all", "queued", "started", "completed", "failed", "cancelled")["id"]
    submit_with_webhook(f"{receiver.url}/ends")
    for _ in range(2):
        claim = worker.claim()
        worker.claims.fail(claim, JobError(code=FailureCode.INTERNAL, message="it broke", retryable=True))

    bodies = [verified(message) for message in receiver.wait_for("/all", 3)]
    (ended,) = receiver.wait_for("/ends")
    wait_until(lambda: is_over(client, id))

    assert {body["status"] for body in bodies} == {"queued", "running", "failed"}
    assert {message.headers["darkroom-event"] for message in receiver.at("/all")} == {
        "queued",
        "started",
        "failed",
    }
    assert len({message.headers["webhook-id"] for message in receiver.at("/all")}) == 3
    assert verified(ended)["error"]["message"] == "it broke"


def test_a_receiver_that_fails_then_redirects_then_recovers_gets_the_same_message(
    client: TestClient,
    worker: ScriptedWorker,
    receiver: Receiver,
    dispatcher: ForkedProgram,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    elsewhere = {"Location": f"{receiver.url}/elsewhere"}
    receiver.plans["/hook"] = [Reply(500), Reply(302, elsewhere), Reply(307, elsewhere), Reply(404), Reply(204)]
    id = submit_with_webhook(f"{receiver.url}/hook")["id"]
    worker.complete(worker.claim())

    attempts = receiver.wait_for("/hook", 5)
    wait_until(lambda: is_over(client, id))

    assert not receiver.at("/elsewhere")
    assert len({message.headers["webhook-id"] for message in attempts}) == 1
    assert len({json.dumps(verified(attempt)["receipt"]) for attempt in attempts}) == 1
    (delivery,) = deliveries_of(client, id)
    assert (delivery["status"], delivery["attempts"], delivery["status_code"]) == ("delivered", 5, 204)
    assert len(receiver.received) == 5


def test_delivery_to_an_unreachable_receiver_is_given_up_after_the_configured_retries(
    client: TestClient,
    queue: JobQueue,
    worker: ScriptedWorker,
    dispatcher: ForkedProgram,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    with receiving() as closed:
        url = f"{closed.url}/hook"
    id = submit_with_webhook(url)["id"]
    worker.complete(worker.claim())

    wait_until(lambda: is_over(client, id))

    (delivery,) = deliveries_of(client, id)
    assert (delivery["status"], delivery["attempts"]) == ("given_up", len(PAUSES_SECONDS) + 1)
    assert delivery["error"]
    assert no_message_is_left(queue)


def no_message_is_left(queue: JobQueue) -> bool:
    """Return whether no message is left, in our keys or RQ's."""
    permanent = {"darkroom:webhooks:turn"}
    keys = {*queue.connection.scan_iter("darkroom:webhooks:*"), *queue.connection.scan_iter("rq:*webhooks*")}
    return keys <= permanent and not list(queue.connection.scan_iter("rq:job:msg_*"))


def test_a_receiver_that_answers_410_is_not_tried_again(
    client: TestClient,
    worker: ScriptedWorker,
    receiver: Receiver,
    dispatcher: ForkedProgram,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    receiver.plans["/hook"] = [Reply(410)]
    id = submit_with_webhook(f"{receiver.url}/hook")["id"]
    worker.complete(worker.claim())

    wait_until(lambda: is_over(client, id))

    (delivery,) = deliveries_of(client, id)
    assert (delivery["status"], delivery["attempts"], delivery["status_code"]) == ("given_up", 1, 410)


@pytest.mark.parametrize(("requested", "longest", "due"), [("1000", 3600, 1000), ("1000", 20, 20)])
def test_a_receivers_retry_after_is_respected(
    queue: JobQueue,
    redis_url: str,
    worker: ScriptedWorker,
    receiver: Receiver,
    submit_with_webhook: SubmitWithWebhook,
    requested: str,
    longest: int,
    due: int,
) -> None:
    receiver.plans["/hook"] = [Reply(429, {"Retry-After": requested})]
    submit_with_webhook(f"{receiver.url}/hook")
    with dispatcher_process(redis_url, DARKROOM_WEBHOOK_LONGEST_PAUSE_SECONDS=str(longest)):
        before = queue.now()
        worker.complete(worker.claim())
        wait_until(lambda: queue.connection.zcard("darkroom:webhooks:due"))

        (id,) = queue.connection.zrange("darkroom:webhooks:due", 0, -1)
        at = queue.connection.zscore("darkroom:webhooks:due", str(id)) or 0
        assert before + due <= at <= queue.now() + due


def test_by_default_a_message_is_retried_at_least_five_times_over_an_hour() -> None:
    pauses = WebhookSettings().pauses_seconds

    assert len(pauses) >= 5
    assert sum(pauses) >= 3600
    assert pauses == sorted(pauses)


def test_a_stalled_receiver_does_not_delay_others(
    queue: JobQueue,
    worker: ScriptedWorker,
    receiver: Receiver,
    dispatcher: ForkedProgram,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    with receiving() as stalled:
        stalled.plans["/hook"] = [Reply(waits=True)]
        for _ in range(12):
            submit_with_webhook(f"{stalled.url}/hook")
        for _ in range(12):
            worker.complete(worker.claim())
        stalled.wait_for("/hook", 4)
        for _ in range(5):
            submit_with_webhook(f"{receiver.url}/hook")
            worker.complete(worker.claim())

        receiver.wait_for("/hook", 5)

        assert len(stalled.received) == 4  # the concurrency per receiver
        assert queue.connection.llen(f"rq:queue:darkroom:webhooks:127.0.0.1:{stalled.port}") == 8
        stalled.released.set()
        stalled.wait_for("/hook", 12)


def test_a_slow_response_is_a_failed_attempt(
    client: TestClient,
    redis_url: str,
    worker: ScriptedWorker,
    receiver: Receiver,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    receiver.plans["/hook"] = [Reply(waits=True), Reply()]
    id = submit_with_webhook(f"{receiver.url}/hook")["id"]
    worker.complete(worker.claim())
    with dispatcher_process(redis_url, DARKROOM_WEBHOOK_TIMEOUT_SECONDS="2"):
        receiver.wait_for("/hook", 2)
        wait_until(lambda: is_over(client, id))

    assert deliveries_of(client, id)[0]["attempts"] == 2


def test_a_dispatcher_killed_during_an_attempt_loses_no_message(
    client: TestClient,
    queue: JobQueue,
    redis_url: str,
    worker: ScriptedWorker,
    receiver: Receiver,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    receiver.plans["/hook"] = [Reply(waits=True)] * 3 + [Reply()]
    ids = [submit_with_webhook(f"{receiver.url}/hook")["id"] for _ in range(6)]
    for _ in ids:
        worker.complete(worker.claim())
    with dispatcher_process(redis_url) as doomed:
        receiver.wait_for("/hook", 4)
        doomed.kill()
        doomed.wait()
    leased = cast("list[str]", queue.connection.zrange("darkroom:webhooks:leases", 0, -1))
    assert leased
    assert all(delivery["status"] == "pending" for id in ids[:3] for delivery in deliveries_of(client, id))

    with dispatcher_process(redis_url):
        queue.connection.zadd("darkroom:webhooks:leases", dict.fromkeys(leased, 1))  # the leases have expired
        for id in ids:
            wait_until(lambda id=id: is_over(client, id))  # type: ignore[misc]

    assert {json.loads(message.body)["id"] for message in receiver.received} == set(ids)
    assert all(delivery["status"] == "delivered" for id in ids for delivery in deliveries_of(client, id))
    assert no_message_is_left(queue)


def test_a_stopping_dispatcher_releases_its_messages_without_using_up_an_attempt(
    client: TestClient,
    queue: JobQueue,
    redis_url: str,
    worker: ScriptedWorker,
    receiver: Receiver,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    receiver.plans["/hook"] = [Reply(waits=True), Reply()]
    id = submit_with_webhook(f"{receiver.url}/hook")["id"]
    worker.complete(worker.claim())
    with dispatcher_process(redis_url, DARKROOM_WEBHOOK_DRAIN_SECONDS="0") as process:
        receiver.wait_for("/hook")
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log
        assert "Traceback" not in log
    assert not queue.connection.exists("darkroom:webhooks:leases")

    with dispatcher_process(redis_url):
        wait_until(lambda: is_over(client, id))

    assert deliveries_of(client, id)[0]["attempts"] == 1


def test_a_stopping_dispatcher_finishes_current_attempts(
    client: TestClient,
    redis_url: str,
    worker: ScriptedWorker,
    receiver: Receiver,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    receiver.plans["/hook"] = [Reply(waits=True)]
    id = submit_with_webhook(f"{receiver.url}/hook")["id"]
    worker.complete(worker.claim())
    with dispatcher_process(redis_url, DARKROOM_WEBHOOK_DRAIN_SECONDS="20") as process:
        receiver.wait_for("/hook")
        process.send_signal(signal.SIGTERM)
        receiver.released.set()
        assert process.wait(60) == 0

    assert deliveries_of(client, id)[0]["status"] == "delivered"


def test_no_connection_is_made_to_an_address_that_is_no_longer_allowed(
    client: TestClient,
    redis_url: str,
    worker: ScriptedWorker,
    receiver: Receiver,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    id = submit_with_webhook(f"{receiver.url}/hook")["id"]
    worker.complete(worker.claim())
    with dispatcher_process(redis_url, DARKROOM_OUTBOUND_NETWORKS="[]"):
        wait_until(lambda: is_over(client, id))

    (delivery,) = deliveries_of(client, id)
    assert delivery["status"] == "given_up"
    assert "private or reserved" in delivery["error"]
    assert not receiver.received


def test_a_message_outlives_its_job(
    client: TestClient,
    redis_url: str,
    worker: ScriptedWorker,
    receiver: Receiver,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    id = submit_with_webhook(f"{receiver.url}/hook")["id"]
    worker.complete(worker.claim())
    assert client.delete(f"/v1/jobs/{id}").status_code == 204

    with dispatcher_process(redis_url):
        (message,) = receiver.wait_for("/hook")

    assert verified(message)["status"] == "completed"


def test_a_foreign_rq_job_is_refused_and_the_next_message_is_delivered(
    queue: JobQueue,
    redis_url: str,
    worker: ScriptedWorker,
    receiver: Receiver,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    name = f"darkroom:webhooks:127.0.0.1:{receiver.port}"
    with Redis.from_url(redis_url) as connection:
        RqJob.create(
            "os.system", ["touch /tmp/planted"], id="planted", connection=connection, serializer=JSONSerializer
        ).save()
    queue.connection.rpush(f"rq:queue:{name}", "planted")
    submit_with_webhook(f"{receiver.url}/hook")
    worker.complete(worker.claim())

    with dispatcher_process(redis_url) as process:
        receiver.wait_for("/hook")
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)

    assert "RQ job planted in a webhook queue is not a Darkroom message: refused" in log
    assert queue.connection.hget("rq:job:planted", "status") == "failed"


def test_rqs_tools_see_a_message_as_an_rq_job(
    redis_url: str,
    queue: JobQueue,
    worker: ScriptedWorker,
    receiver: Receiver,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    submit_with_webhook(f"{receiver.url}/hook")
    name = f"darkroom:webhooks:127.0.0.1:{receiver.port}"
    worker.complete(worker.claim())
    (id,) = cast("list[str]", queue.connection.lrange(f"rq:queue:{name}", 0, -1))
    receiver.plans["/hook"] = [Reply(500, waits=True)]

    with Redis.from_url(redis_url) as connection:
        job = RqJob.fetch(id, connection=connection, serializer=JSONSerializer)
        assert (job.func_name, job.args, job.origin) == ("dispatcher.rq_job.deliver_message", [id], name)
        assert job.get_status() == "queued"
        with dispatcher_process(redis_url, DARKROOM_WEBHOOK_PAUSES_SECONDS="[100]"):
            receiver.wait_for("/hook")
            started = StartedJobRegistry(name, connection, serializer=JSONSerializer)
            assert started.get_job_ids(cleanup=False) == [id]
            assert job.get_status() == "started"
            receiver.released.set()
            wait_until(lambda: queue.connection.zcard("darkroom:webhooks:due"))
        scheduled = ScheduledJobRegistry(name, connection, serializer=JSONSerializer)  # type: ignore[no-untyped-call]
        assert scheduled.get_job_ids() == [id]
        assert job.get_status() == "scheduled"


def test_attempts_are_counted_by_outcome(
    queue: JobQueue,
    redis_url: str,
    worker: ScriptedWorker,
    receiver: Receiver,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    receiver.plans["/hook"] = [Reply(500), Reply(200), Reply(410)]
    for _ in range(2):
        submit_with_webhook(f"{receiver.url}/hook")
    with dispatcher_process(redis_url, DARKROOM_WEBHOOK_SITE_CONCURRENCY="1") as process:
        for _ in range(2):
            worker.complete(worker.claim())
        receiver.wait_for("/hook", 3)
        wait_until(lambda: no_message_is_left(queue))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0

    totals = queue.connection.hgetall("darkroom:totals")
    outcomes = {json.loads(key)[2]: count for key, count in totals.items() if "webhook" in key}
    assert outcomes == {"again": "1", "delivered": "1", "given_up": "1"}


def test_a_message_is_sent_and_retried_without_waiting_for_the_poll(
    redis_url: str, worker: ScriptedWorker, receiver: Receiver, submit_with_webhook: SubmitWithWebhook
) -> None:
    receiver.plans["/hook"] = [Reply(500), Reply()]
    with dispatcher_process(
        redis_url, DARKROOM_WEBHOOK_POLL_SECONDS="300", DARKROOM_WEBHOOK_PAUSES_SECONDS="[0.5]"
    ) as process:
        with Redis.from_url(redis_url) as connection:
            wait_until(lambda: connection.scard("rq:workers") == 1)
        submit_with_webhook(f"{receiver.url}/hook")
        worker.complete(worker.claim())
        receiver.wait_for("/hook", 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def test_a_free_slot_is_used_without_waiting_for_the_poll(
    client: TestClient,
    redis_url: str,
    worker: ScriptedWorker,
    receiver: Receiver,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    ids = [submit_with_webhook(f"{receiver.url}/hook")["id"] for _ in range(3)]
    for _ in ids:
        worker.complete(worker.claim())
    with dispatcher_process(redis_url, DARKROOM_WEBHOOK_POLL_SECONDS="300", DARKROOM_WEBHOOK_SITE_CONCURRENCY="1"):
        receiver.wait_for("/hook", 3)


def test_a_message_that_an_earlier_release_queued_is_delivered(
    queue: JobQueue,
    redis_url: str,
    worker: ScriptedWorker,
    receiver: Receiver,
    submit_with_webhook: SubmitWithWebhook,
) -> None:
    submit_with_webhook(f"{receiver.url}/hook")
    worker.complete(worker.claim())
    name = f"darkroom:webhooks:127.0.0.1:{receiver.port}"
    (id,) = cast("list[str]", queue.connection.lrange(f"rq:queue:{name}", 0, -1))
    queue.connection.hset(f"rq:job:{id}", "data", f'["dispatcher.deliveries.deliver",null,["{id}"],{{}}]')
    with dispatcher_process(redis_url):
        (message,) = receiver.wait_for("/hook")
    assert verified(message)["status"] == "completed"
