"""The Python client where calls fail: what is repeated and how, what is cancelled, and what its error says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import httpx
import pytest
from standardwebhooks import Webhook

from darkroom_client import Client, DarkroomError, Event, FieldError, verify_webhook
from tests.support.receiver import Received, Receiver, Reply, receiving

JOBS, JOB, EVENTS, CANCEL, IMAGE = "/v1/jobs", "/v1/jobs/a", "/v1/jobs/a/events", "/v1/jobs/a/cancel", "/a.png"
REQUEST: Any = {"task": "txt2img", "prompt": "a red circle"}


@pytest.fixture
def service() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def client(service: Receiver) -> Iterator[Client]:
    with Client(service.url, "KEY", http=httpx.Client(trust_env=False)) as client:
        yield client


def answer(body: object, status: int = 200, **headers: str) -> Reply:
    return Reply(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode()
    )


def job(service: Receiver, status: str, **fields: Any) -> dict[str, Any]:
    progress = {"step": 1, "steps": 2, "fraction": 0.5}
    images = [{"url": f"{service.url}{IMAGE}"}] if status == "completed" else []
    return {"id": "a", "status": status, "progress": progress, "images": images, "error": None, **fields}


def completes(service: Receiver) -> None:
    """Plan a job that is queued, runs and completes."""
    service.plans[JOBS] = [answer(job(service, "queued"), 202)]
    service.plans[JOB] = [answer(job(service, status)) for status in ("running", "running", "completed")]
    service.plans[IMAGE] = [Reply(body=b"image")]


def header(calls: list[Received], name: str) -> list[str | None]:
    return [call.headers.get(name) for call in calls]


def written(*events: tuple[str, str, object]) -> bytes:
    lines = [f"id: {id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n" for id, kind, data in events]
    return ("retry: 1000\n\n: heartbeat\n\n" + "".join(lines)).encode()


def test_polling_tells_what_changes_and_returns_the_files(service: Receiver, client: Client) -> None:
    completes(service)
    seen: list[Event] = []

    result = client.run(REQUEST, on_event=seen.append)

    assert (result.job["status"], result.images) == ("completed", (b"image",))
    assert [event.kind for event in seen] == ["queued", "progress", "completed"]
    assert seen[1].fraction == 0.5


def test_the_key_is_for_the_service_and_not_for_links(service: Receiver, client: Client) -> None:
    completes(service)

    client.run(REQUEST)

    assert set(header(service.at(JOBS) + service.at(JOB), "authorization")) == {"Bearer KEY"}
    assert header(service.at(IMAGE), "authorization") == [None]


def test_a_submission_is_repeated_under_one_key_of_idempotency(service: Receiver, client: Client) -> None:
    completes(service)
    broken = Reply(200, {"Content-Length": "100", "Connection": "close"}, b"{")
    full = answer({"code": "queue_full"}, 429, Retry_After="0")
    raced = answer({"code": "conflict"}, 409)
    service.plans[JOBS] = [broken, full, raced, answer(job(service, "queued"), 202)]

    client.run(REQUEST)
    client.run(REQUEST)

    keys = header(service.at(JOBS), "idempotency-key")
    assert len(keys) == 5
    assert len(set(keys[:4])) == 1
    assert keys[4] not in {None, keys[0]}


def test_a_service_that_says_when_to_come_back_is_obeyed(service: Receiver, client: Client) -> None:
    service.plans[JOBS] = [answer({"code": "queue_full", "detail": "the queue is full"}, 429, Retry_After="3600")]

    with pytest.raises(DarkroomError, match="the queue is full") as raised:
        client.run(REQUEST, timeout_seconds=30)  # no pause that is longer than what is left

    assert (raised.value.retry_after_seconds, raised.value.is_temporary) == (3600, True)
    assert len(service.at(JOBS)) == 1


def test_a_broken_stream_goes_on_where_it_stopped(service: Receiver, client: Client) -> None:
    completes(service)
    first = written(("1-0", "queued", {}), ("2-0", "progress", {"fraction": 0.5}))
    last = written(("3-0", "completed", {"job": job(service, "completed")}))
    service.plans[EVENTS] = [
        Reply(200, {"Content-Length": "9999", "Connection": "close"}, first),
        Reply(200, {"Content-Length": "9999", "Connection": "close"}, first[:20]),
        Reply(body=last),
    ]
    seen: list[Event] = []

    result = client.run(REQUEST, wait="stream", on_event=seen.append)

    assert result.images == (b"image",)
    assert [(event.id, event.kind) for event in seen] == [
        ("1-0", "queued"),
        ("2-0", "progress"),
        ("3-0", "completed"),
    ]
    assert header(service.at(EVENTS), "last-event-id") == ["", "2-0", "2-0"]
    assert service.at(JOB) == []


@pytest.mark.parametrize("status", [204, 403, 404])
def test_polling_takes_over_where_there_is_no_stream(service: Receiver, client: Client, status: int) -> None:
    completes(service)
    service.plans[EVENTS] = [Reply(status)]

    assert client.run(REQUEST, wait="stream").images == (b"image",)


def test_a_waiting_call_asks_the_service_to_cancel_a_job_that_nobody_waits_for(
    service: Receiver, client: Client
) -> None:
    completes(service)

    assert client.run(REQUEST, wait="wait").images == (b"image",)

    (call,) = service.at(JOBS)
    assert call.headers["prefer"] == "wait=60"
    assert json.loads(call.body) == {**REQUEST, "cancel_on_disconnect": True}


@pytest.mark.parametrize("wait", ["poll", "stream"])
def test_a_job_whose_wait_is_interrupted_is_cancelled(
    service: Receiver, client: Client, wait: Literal["poll", "stream"]
) -> None:
    completes(service)
    service.plans[EVENTS] = [Reply(body=written(("1-0", "queued", {})))]
    service.plans[CANCEL] = [answer({"code": "conflict"}, 409)]  # it has just ended: nothing to hide the reason

    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.run(REQUEST, wait=wait, on_event=interrupt)

    assert len(service.at(CANCEL)) == 1


def test_a_job_that_takes_too_long_is_cancelled(service: Receiver, client: Client) -> None:
    service.plans[JOBS] = [answer(job(service, "queued"), 202)]
    service.plans[JOB] = [answer(job(service, "running"))]

    with pytest.raises(DarkroomError, match=r"did not end within 0\.3 s") as raised:
        client.run(REQUEST, timeout_seconds=0.3)

    assert (raised.value.code, len(service.at(CANCEL))) == ("timeout", 1)


def test_a_refusal_is_an_error_with_its_problem(service: Receiver, client: Client) -> None:
    problem = {
        "type": "urn:darkroom:problem:invalid_request", "title": "Invalid request", "detail": "wrong",
        "code": "invalid_request", "request_id": "r1",
        "errors": [{"field": "width", "message": "must be a multiple of 8", "allowed": [64, 72]}],
    }  # fmt: skip
    service.plans[JOBS] = [answer(problem, 422)]

    with pytest.raises(DarkroomError) as raised:
        client.run(REQUEST)

    error = raised.value
    assert (error.type, error.title, error.status, error.code) == (
        problem["type"],
        "Invalid request",
        422,
        "invalid_request",
    )
    assert (error.detail, error.request_id, error.job) == ("wrong", "r1", None)
    assert error.errors == (FieldError("width", "must be a multiple of 8", [64, 72]),)
    assert error.errors_by_field == {"width": ["must be a multiple of 8"]}
    assert len(service.at(JOBS)) == 1


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b"[1]", b"null", b'{"errors": [1, null]}'])
def test_a_page_of_a_proxy_is_an_error_too(service: Receiver, body: bytes) -> None:
    service.plans[JOB] = [Reply(502, body=body)]

    client = Client(service.url, retries=0, http=httpx.Client(trust_env=False))
    with client, pytest.raises(DarkroomError) as raised:
        client.job("a")

    assert (raised.value.code, raised.value.status, raised.value.errors) == ("http_502", 502, ())


def test_a_service_that_is_not_there_is_an_error_that_names_it() -> None:
    client = Client("http://127.0.0.1:1", retries=1, http=httpx.Client(trust_env=False))
    with client, pytest.raises(DarkroomError, match=r"http://127\.0\.0\.1:1/v1/jobs/a does not") as raised:
        client.job("a")

    assert raised.value.code == "no_answer"


@pytest.mark.parametrize(
    ("status", "error", "code", "title"),
    [
        ("failed", {"code": "out_of_memory", "message": "too large"}, "out_of_memory", "Job failed"),
        ("cancelled", None, "cancelled", "Job cancelled"),
    ],
)
def test_a_job_that_did_not_complete_is_an_error_with_the_job(
    service: Receiver, client: Client, status: str, error: object, code: str, title: str
) -> None:
    service.plans[JOBS] = [answer(job(service, status, error=error))]

    with pytest.raises(DarkroomError) as raised:
        client.run(REQUEST)

    assert (raised.value.code, raised.value.title) == (code, title)
    assert (raised.value.job or {})["status"] == status
    assert service.at(CANCEL) == []


def test_a_webhook_is_read_if_its_signature_is_that_of_the_secret() -> None:
    secret, now, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", datetime.now(UTC), '{"id": "a", "prompt": "ü"}'
    signature = Webhook(secret).sign("msg_1", now, body)
    headers = {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(now.timestamp())),
        "Webhook-Signature": f"v1,AAAA {signature}",
    }

    assert verify_webhook(body.encode(), headers, secret)["id"] == "a"
    for wrong in (
        {"Webhook-Id": "msg_2"},
        {"Webhook-Timestamp": "1"},
        {"Webhook-Timestamp": "soon"},
        {"Webhook-Signature": "v1,ü v2,x"},
        {"Webhook-Signature": ""},
    ):
        with pytest.raises(DarkroomError) as raised:
            verify_webhook(body.encode(), headers | wrong, secret)
        assert raised.value.code == "bad_signature"
    with pytest.raises(DarkroomError):
        verify_webhook(body.encode() + b" ", headers, secret)
