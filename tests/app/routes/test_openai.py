"""OpenAI Images: how requests are translated, what is refused, and how a waiting call ends."""

from __future__ import annotations

import base64
import json
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.dialects.openai.forms import read_edit_form
from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore
from contracts.jobs.events import Preview
from contracts.jobs.failures import RETRYABLE, FailureCode
from contracts.jobs.records import JobError, JobRecord, JobState
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.api_process import api_process
from tests.support.images import encode_solid, open_png
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import wait_until

GENERATE, EDIT = "/v1/images/generations", "/v1/images/edits"
PROMPT = {"prompt": "a red circle"}
IMAGE = encode_solid("RGB", (64, 64), "blue")
HALF_CLEAR = encode_solid("RGBA", (64, 64), (9, 9, 9, 100))


def error_of(response: Any) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


def test_aliases_are_translated_to_native_fields(client: TestClient, completed: Callable[[], JobRecord]) -> None:
    body = {
        "n": 2, "size": "96x64", "quality": "high", "output_format": "webp", "output_compression": 0,
        "user": "u", "safety_identifier": "s", "partial_images": 0, "stream": False, "background": None,
    }  # fmt: skip
    response = client.post(GENERATE, json=PROMPT | body | {"seed": 0, "negative_prompt": "green"})

    job = completed()
    parameters = job.parameters
    assert (parameters.num_images, parameters.width, parameters.height, parameters.seed) == (2, 96, 64, 0)
    assert (parameters.num_inference_steps, parameters.output_format, parameters.output_quality) == (24, "webp", 1)
    assert (parameters.negative_prompt, job.metadata, job.response_format) == ("green", {"user": "s"}, "b64_json")
    answer = response.json()
    assert (response.status_code, len(answer["data"]), answer["job"]) == (200, 2, job.id)
    assert (answer["size"], answer["quality"], answer["output_format"]) == ("96x64", "high", "webp")
    assert response.headers["location"].endswith(f"/v1/jobs/{job.id}")


def test_a_field_without_effect_is_refused_by_its_own_name(
    client: TestClient, queue: JobQueue, subtests: pytest.Subtests
) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"n": 9}, "n"),
        ({"n": 2, "num_images": 3}, "n"),
        ({"size": "64"}, "size"),
        ({"size": "32x64"}, "size"),
        ({"size": "64x64", "width": 72}, "size"),
        ({"size": "2048x2048"}, "size"),
        ({"quality": "best"}, "quality"),
        ({"quality": "high", "num_inference_steps": 3}, "quality"),
        ({"background": "transparent"}, "background"),
        ({"style": "vivid"}, "style"),
        ({"moderation": "high"}, "moderation"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_compression": 50}, "output_compression"),
        ({"output_format": "jpeg", "output_compression": 50, "output_quality": 51}, "output_compression"),
        ({"partial_images": 2}, "partial_images"),
        ({"stream": True, "partial_images": 2, "previews": 3}, "partial_images"),
        ({"stream": True, "response_format": "url"}, "response_format"),
        ({"model": "dall-e-3"}, "model"),
        ({"model": "dall-e-3", "quality": "low"}, "model"),
        ({"image": "x"}, "image"),
        ({"webhooks": 1}, "webhooks"),
        ({"loras": [{"name": "nobody"}]}, "loras.0.name"),
        ({"prompt": ""}, "prompt"),
    ]
    for fields, param in cases:
        with subtests.test(fields=fields, param=param):
            response = client.post(GENERATE, json=PROMPT | fields)

            error = error_of(response)
            assert (response.status_code, error["param"], error["type"]) == (422, param, "invalid_request_error")
            assert error["code"] == "invalid_request"
            assert queue.connection.keys("*") == []


def form(**fields: str) -> dict[str, str]:
    return {"prompt": "a red circle", **fields}


def test_a_form_has_the_same_effect_as_json(
    client: TestClient, completed: Callable[[], JobRecord], storage: Storage
) -> None:
    response = client.post(
        EDIT,
        data=form(n="2", seed="0", strength="0.5", metadata='{"a": "1"}', batchable="true", user="7"),
        files=[("image[]", ("a.png", IMAGE, "image/png")), ("mask", ("m.png", HALF_CLEAR, "image/png"))],
    )

    assert response.status_code == 200, response.text
    job = completed()
    parameters = job.parameters
    assert (
        parameters.task,
        parameters.num_images,
        parameters.seed,
        parameters.strength,
        parameters.batchable,
    ) == ("inpaint", 2, 0, 0.5, True)
    assert job.metadata == {"a": "1", "user": "7"}
    mask = open_png(storage.read(str(parameters.mask_image)))
    assert (mask.mode, mask.getextrema()) == ("L", (155, 155))


@pytest.mark.parametrize(
    ("size", "expected"), [((1280, 960), (88, 64)), ((960, 1280), (64, 88)), ((9, 9), (64, 64))]
)
def test_an_image_of_any_size_is_fitted_to_the_model(
    client: TestClient, completed: Callable[[], JobRecord], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    photo = encode_solid("RGB", size, "blue", "JPEG")

    response = client.post(EDIT, data=PROMPT, files=[("image", ("a.jpg", photo, "image/jpeg"))])

    assert response.status_code == 200, response.text
    parameters = completed().parameters
    assert (parameters.width, parameters.height, parameters.fit) == (*expected, "cover")
    assert parameters.input_images[0].fit == "cover"


def test_an_edit_of_another_aspect_than_its_size_is_not_squashed(
    client: TestClient, completed: Callable[[], JobRecord]
) -> None:
    wide = [("image", ("a.png", encode_solid("RGB", (256, 64), "blue"), "image/png"))]

    response = client.post(EDIT, data=PROMPT | {"size": "64x64"}, files=wide)

    assert response.status_code == 200, response.text
    (use,) = completed().parameters.input_images
    assert (use.width, use.height, use.fit, use.crop) == (256, 64, "cover", (96, 0, 160, 64))


def test_the_images_of_a_form_are_passed_on_as_bytes_and_decoded_once(
    client: TestClient, completed: Callable[[], JobRecord], storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    files = [("image", ("a.png", IMAGE, "image/png")), ("mask", ("m.png", HALF_CLEAR, "image/png"))]

    body = read_edit_form([("prompt", "x"), *((name, data) for name, (_, data, _) in files)])
    with caplog.at_level(logging.DEBUG, "app.inputs.process"):
        response = client.post(EDIT, data=form(), files=files)

    assert body.files["image"] is IMAGE
    assert body.files["mask"] is HALF_CLEAR
    assert base64.b64encode(IMAGE[:30]) not in body.json
    assert response.status_code == 200, response.text
    assert len([record for record in caplog.records if "to decode" in record.getMessage()]) == len(files)
    assert sorted(storage.find("inputs/")) == sorted(filter(None, (completed().parameters.inputs)))


def test_a_file_in_a_field_that_is_not_an_image_is_refused(client: TestClient) -> None:
    files = [("image", ("a.png", IMAGE, "image/png")), ("prompt", ("p.txt", b"a red circle", "text/plain"))]

    response = client.post(EDIT, files=files)

    assert (response.status_code, error_of(response)["param"]) == (422, "prompt")


def test_a_repeated_form_is_the_same_call_whatever_its_boundary() -> None:
    fields: list[tuple[str, str | bytes]] = [("prompt", "x"), ("image[]", IMAGE)]

    assert read_edit_form(fields).json == read_edit_form(list(fields)).json
    assert read_edit_form(fields).json != read_edit_form([("prompt", "x"), ("image[]", HALF_CLEAR)]).json


def test_json_takes_the_image_references_of_every_other_call(
    client: TestClient, completed: Callable[[], JobRecord], storage: Storage
) -> None:
    upload = client.post("/v1/uploads", content=HALF_CLEAR, headers={"content-type": "image/png"}).json()["id"]
    image = base64.b64encode(IMAGE).decode()

    response = client.post(EDIT, json=PROMPT | {"image": image, "mask": upload})

    assert response.status_code == 200, response.text
    parameters = completed().parameters
    assert (parameters.task, parameters.strength, parameters.width) == ("inpaint", 1.0, 64)
    assert open_png(storage.read(str(parameters.mask_image))).getextrema() == (155, 155)


def test_images_that_cannot_be_edited_are_refused_by_field(
    client: TestClient, queue: JobQueue, subtests: pytest.Subtests
) -> None:
    for files, status, param in [
        ([], 422, "image"),
        ([("image", IMAGE), ("image", IMAGE)], 422, "image"),
        ([("image[]", b"not an image")], 415, "image"),
        ([("image", IMAGE), ("mask", b"not an image")], 415, "mask"),
        ([("image", IMAGE), ("mask", IMAGE)], 422, "mask"),
        ([("image", IMAGE), ("mask", encode_solid("RGBA", (64, 64), (0, 0, 0, 255)))], 422, "mask"),
        ([("image", IMAGE), ("mask", encode_solid("RGBA", (32, 32), (0, 0, 0, 0)))], 422, "mask"),
        ([("image", IMAGE), ("markup", HALF_CLEAR)], 422, "markup"),
        ([("image", b"")], 415, "image"),
    ]:
        with subtests.test(files=files, status=status, param=param):
            response = client.post(EDIT, data=form(), files=[(name, ("x.png", data)) for name, data in files])

            if not files:
                response = client.post(EDIT, files={"prompt": (None, "a red circle")})
            assert (response.status_code, error_of(response)["param"]) == (status, param)
            assert not queue.connection.exists("darkroom:jobs:local")


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "unreadable_body"),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "unreadable_body"),
        ({"content": b"x" * 5000}, 413, "body_too_large"),
    ],
)
def test_bodies_that_cannot_be_read_are_errors_of_the_same_shape(
    settings: SharedSettings, arguments: dict[str, Any], status: int, code: str
) -> None:
    with TestClient(create_app(ApiSettings(shared=settings, max_body_bytes=4096))) as client:
        response = client.post(EDIT, **arguments)

    assert (response.status_code, error_of(response)["code"]) == (status, code)


def test_unknown_paths_and_methods_are_errors_of_the_same_shape(client: TestClient) -> None:
    assert error_of(client.post("/v1/images/upscales"))["code"] == "not_found"
    assert error_of(client.get(GENERATE))["type"] == "invalid_request_error"


def test_a_wrong_key_is_an_error_of_the_same_shape(client: TestClient, queue: JobQueue) -> None:
    ApiKeyStore(queue.connection).create("a", calls_per_minute=1)

    response = client.post(GENERATE, json=PROMPT, headers={"Authorization": "Bearer none"})

    assert (response.status_code, error_of(response)["type"]) == (401, "authentication_error")
    assert error_of(client.post(EDIT, content=b"x" * 2**20))["code"] == "unauthorized"


def test_a_full_queue_is_a_rate_limit_error(settings: SharedSettings, queue: JobQueue) -> None:
    with TestClient(create_app(ApiSettings(shared=settings, max_waiting=1))) as client:
        client.post("/v1/txt2img", json=PROMPT)
        response = client.post(GENERATE, json=PROMPT)

    assert (response.status_code, error_of(response)["type"]) == (429, "rate_limit_error")
    assert int(response.headers["retry-after"]) >= 1


def test_an_unavailable_redis_is_a_server_error_with_retry_after(settings: SharedSettings) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"})
    with TestClient(create_app(ApiSettings(shared=away))) as client:
        response = client.post(GENERATE, json=PROMPT)

    assert (response.status_code, error_of(response)["type"]) == (503, "server_error")
    assert "retry-after" in response.headers


def fail(worker: ScriptedWorker) -> None:
    code = FailureCode.OUT_OF_MEMORY
    worker.claims.fail(worker.claim_next(), JobError(code=code, message="too large", retryable=code in RETRYABLE))


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_job_that_fails_is_an_error_that_clients_do_not_retry(
    client: TestClient, worker: ScriptedWorker, is_stream: bool
) -> None:
    thread = threading.Thread(target=lambda: fail(worker))
    thread.start()

    response = client.post(GENERATE, json=PROMPT | {"stream": is_stream})

    thread.join()
    if is_stream:
        assert response.headers["content-type"].startswith("text/event-stream")
        name, data = response.text.strip().splitlines()[-2:]
        error = json.loads(data.removeprefix("data: "))["error"]
        assert name == "event: error"
    else:
        assert (response.status_code, response.headers["x-should-retry"]) == (502, "false")
        error = error_of(response)
    assert (error["code"], error["type"]) == ("out_of_memory", "server_error")
    assert "too large" in error["message"]


def test_a_cancelled_job_is_reported_as_cancelled(settings: SharedSettings, queue: JobQueue) -> None:
    answers: list[httpx.Response] = []
    with api_process(settings.redis_url, settings.data) as (client, _):
        thread = threading.Thread(target=lambda: answers.append(client.post(GENERATE, json=PROMPT)))
        thread.start()
        wait_until(lambda: queue.connection.zcard("darkroom:jobs:local") == 1)
        (id,) = queue.connection.zrange("darkroom:jobs:local", 0, 0)
        queue.cancel(str(id))
        thread.join()

    assert (answers[0].status_code, error_of(answers[0])["code"]) == (502, "cancelled")


def test_a_call_does_not_wait_forever(settings: SharedSettings, queue: JobQueue) -> None:
    with TestClient(create_app(ApiSettings(shared=settings, hold_seconds=0.2))) as client:
        response = client.post(GENERATE, json=PROMPT)

    error = error_of(response)
    (id,) = queue.connection.zrange("darkroom:jobs:local", 0, 0)
    assert (response.status_code, error["code"]) == (504, "still_running")
    assert str(id) in error["message"]
    assert response.headers["x-should-retry"] == "false"
    assert queue.fetch(str(id)).state is JobState.QUEUED


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_disconnects_leaves_its_job_running_and_finds_it_by_its_key(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker, is_stream: bool
) -> None:
    headers = {"Idempotency-Key": "one", "Content-Type": "application/json"}
    body = json.dumps(PROMPT | {"stream": is_stream})
    with api_process(settings.redis_url, settings.data) as (client, _):
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
            fields = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
            lines = [f"POST {GENERATE} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
            head = "\r\n".join(lines)
            connection.sendall(f"{head}\r\n\r\n{body}".encode())
            wait_until(lambda: queue.connection.zcard("darkroom:jobs:local") == 1)
        claim = worker.claim_next()
        worker.complete(claim)
        again = client.post(GENERATE, content=body, headers=headers)

    assert again.status_code == 200
    assert again.headers["idempotency-replayed"] == "true"
    assert claim.job.id in again.text
    assert queue.connection.zcard("darkroom:jobs:local") == 1


def test_previews_are_partial_images_of_full_size_in_the_requested_format(
    client: TestClient, worker: ScriptedWorker
) -> None:
    def work() -> None:
        claim = worker.claim_next()
        small = base64.b64encode(encode_solid("RGB", (8, 8), "red", "JPEG")).decode()
        shown = Preview(index=0, step=1, steps=4, width=8, height=8, url=f"data:image/jpeg;base64,{small}")
        assert worker.claims.preview(claim, shown)
        worker.complete(claim)

    thread = threading.Thread(target=work)
    thread.start()
    response = client.post(GENERATE, json=PROMPT | {"stream": True, "partial_images": 1, "size": "64x96"})
    thread.join()

    assert "location" in response.headers
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in events] == ["image_generation.partial_image", "image_generation.completed"]
    assert open_png(base64.b64decode(events[0]["b64_json"])).size == (64, 96)
    assert events[0]["partial_image_index"] == 0
    assert "usage" not in events[1]  # tokens are not counted, and 0 would not be true
