"""Hostile input through every dialect: refused in its own form, never with 500, and nothing is queued."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from contracts.auth.api_keys import ApiKeyStore
from contracts.queue.client import JobQueue
from tests.support.images import encode_solid, png_header
from tests.support.scripted_worker import ScriptedWorker

#: Longest answer: it may quote what was sent, but not all of it.
MAX_ANSWER_BYTES = 200_000
REPLICATE = "/replicate/v1/models/darkroom/shapes-sdxl/predictions"
BOMB = base64.b64encode(png_header(60_000, 60_000)).decode()
PNG = encode_solid("RGB", (64, 64), "blue")
DEEP = b"[" * 100_000


@dataclass(frozen=True)
class Dialect:
    """Where a dialect takes fields, how it names an image, and what its errors have.

    Attributes:
        make: fields of the caller -> a body.
    """

    path: str
    make: Callable[[dict[str, Any]], dict[str, Any]]
    image: Callable[[str], dict[str, Any]]
    error: Callable[[dict[str, Any]], object]
    media_type: str = "application/json"


def openai_error(body: dict[str, Any]) -> object:
    return body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}


def huggingface_error(body: dict[str, Any]) -> object:
    return body.keys() - {"estimated_time"} == {"error", "error_type"}


def problem(body: dict[str, Any]) -> object:
    return body.keys() == {"type", "title", "status", "detail", "code", "errors", "request_id"}


def a1111_error(body: dict[str, Any]) -> object:
    return body.keys() == {"error", "detail", "body", "errors"}


PROMPT = {"prompt": "a red circle"}
DIALECTS = {
    "openai": Dialect(
        "/v1/images/generations", lambda fields: {**PROMPT, **fields}, lambda image: {"image": image}, openai_error
    ),
    "openai edits": Dialect(
        "/v1/images/edits", lambda fields: {**PROMPT, **fields}, lambda image: {"images": [image]}, openai_error
    ),
    "hugging face": Dialect(
        "/hf/shapes-sdxl",
        lambda fields: {"inputs": "a red circle", "parameters": fields},
        lambda image: {"image": image},
        huggingface_error,
    ),
    "replicate": Dialect(
        REPLICATE,
        lambda fields: {"input": {**PROMPT, **fields}},
        lambda image: {"image": image},
        problem,
        "application/problem+json",
    ),
    "a1111": Dialect(
        "/sdapi/v1/txt2img",
        lambda fields: {**PROMPT, **fields},
        lambda image: {
            "alwayson_scripts": {"ControlNet": {"args": [{"model": "shapes-sdxl-silhouette", "image": image}]}}
        },
        a1111_error,
    ),
    "a1111 img2img": Dialect(
        "/sdapi/v1/img2img",
        lambda fields: {**PROMPT, **fields},
        lambda image: {"init_images": [image]},
        a1111_error,
    ),
    "a1111 options": Dialect(
        "/sdapi/v1/options", lambda fields: fields, lambda image: {"sd_model_checkpoint": image}, a1111_error
    ),
    "a1111 png-info": Dialect(
        "/sdapi/v1/png-info", lambda fields: fields, lambda image: {"image": image}, a1111_error
    ),
    "a1111 detect": Dialect(
        "/controlnet/detect",
        lambda fields: fields,
        lambda image: {"controlnet_input_images": [image], "controlnet_module": "x"},
        a1111_error,
    ),
}
#: Bodies that are refused whatever the route is: what is sent, and its content type.
BODIES: list[tuple[bytes, str]] = [
    (b"", "application/json"),
    (b"null", "application/json"),
    (b'{"prompt": NaN}', "application/json"),
    (b'{"prompt": "\xff"}', "application/json"),
    (b'{"seed": ' + b"9" * 10_000 + b"}", "application/json"),
    (DEEP, "application/json"),
    (b'{"prompt": "\\ud800", "inputs": "\\ud800", "input": {"prompt": "\\ud800"}}', "application/json"),
    (b'{"prompt": "x"}', "text/plain"),
    (b"--x\r\n", "multipart/form-data; boundary=x"),
]
#: Fields that are refused in every dialect: unknown there, or wrong. One set is one request.
FIELDS: list[dict[str, Any]] = [
    {"x" * 5_000: 1, **{f"k{number}": 1 for number in range(500)}},
    {
        "seed": 2**70,
        "width": 10**9,
        "num_inference_steps": 10**9,
        "steps": 10**9,
        "n": 10**12,
        "batch_size": 10**12,
    },
    {"seed": 1e308, "width": True, "num_inference_steps": [], "steps": [], "n": "x", "batch_size": {}},
    {"prompt": {}, "num_images": {}, "webhook": 7, "metadata": {"a": {}}, "negative_prompt": ["x"]},
    {"loras": 7, "controls": 7, "references": 7, "alwayson_scripts": 7, "override_settings": 7},
    {"loras": [7], "controls": [7], "references": [7], "alwayson_scripts": {"ControlNet": 7}},
    {
        "loras": [[[]]],
        "controls": [[[]]],
        "references": [{}],
        "alwayson_scripts": {"ControlNet": {"args": [7, None]}},
    },
    {"image": 7, "init_images": 7, "images": 7, "mask": 7, "mask_image": 7},
    {"image": [{}], "init_images": [{}], "images": [{}], "mask": {}, "mask_image": {}},
    {"image": ["A" * 100] * 500, "init_images": ["A" * 100] * 500, "images": ["A" * 100] * 500},
    {"override_settings": {"sd_model_checkpoint": {}}, "target_size": {"width": {}, "height": []}},
    {"size": "99999999999999999999x1", "scheduler": "x" * 50_000, "sampler_name": "x" * 50_000},
]
#: Images that are refused: bombs, text, other machines, files, images that are nobody's.
IMAGES = (
    BOMB,
    "A" * 400,
    "not base64!",
    "/etc/passwd",
    "https://169.254.169.254/latest",
    "upload:" + "0" * 64,
    "job:../0",
    "x" * 100_000,
)


def require_refusal(dialect: Dialect, response: httpx2.Response, what: object) -> None:
    shown = f"{str(what)[:200]}: {response.status_code} {response.text[:500]}"
    assert 400 <= response.status_code < 500, shown
    assert response.headers["content-type"] == dialect.media_type, shown
    assert dialect.error(response.json()), shown
    assert len(response.content) < MAX_ANSWER_BYTES, shown


def test_bodies_are_refused_in_the_form_of_the_dialect(client: TestClient, queue: JobQueue) -> None:
    for dialect in DIALECTS.values():
        for content, media_type in BODIES:
            response = client.post(dialect.path, content=content, headers={"content-type": media_type})
            require_refusal(dialect, response, (content[:60], media_type))
        require_refusal(dialect, client.request("PATCH", dialect.path), "PATCH")
        require_refusal(dialect, client.post(f"{dialect.path}?x=1", json=dialect.make({})), "a query")
    assert queue.connection.keys("darkroom:job:*") == []


def test_fields_and_images_are_refused_in_the_form_of_the_dialect(
    client: TestClient, queue: JobQueue, subtests: pytest.Subtests
) -> None:
    for name in ["openai edits", "hugging face", "replicate", "a1111 img2img", "a1111 detect"]:
        with subtests.test(name=name):
            dialect = DIALECTS[name]
            for fields in FIELDS:
                require_refusal(dialect, client.post(dialect.path, json=dialect.make(fields)), fields)
            for image in IMAGES:
                require_refusal(dialect, client.post(dialect.path, json=dialect.make(dialect.image(image))), image)
            assert queue.connection.keys("darkroom:job:*") == []
            assert queue.connection.keys("darkroom:input:*") == []


def test_without_a_valid_key_nothing_is_read(client: TestClient, queue: JobQueue) -> None:
    ApiKeyStore(queue.connection).create("someone")

    for dialect in DIALECTS.values():
        for value in ("Bearer " + "x" * 5_000, "Basic !!", "ü"):
            response = client.post(dialect.path, content=DEEP, headers={b"authorization": value.encode()})
            require_refusal(dialect, response, value)
            assert response.status_code == 401, value


def test_what_another_owner_has_cannot_be_told_from_what_does_not_exist(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    keys = ApiKeyStore(queue.connection)
    mine, theirs = ({"Authorization": f"Bearer {keys.create(name)[1]}"} for name in ("mine", "theirs"))
    upload = client.post("/v1/uploads", content=PNG, headers={**mine, "content-type": "image/png"}).json()["id"]
    job = client.post("/v1/txt2img", json=PROMPT, headers=mine).json()["id"]
    worker.complete(worker.claim())

    for dialect in DIALECTS.values():
        for image, missing in ((upload, "upload:" + "0" * 64), (f"job:{job}/0", f"job:{'0' * 32}/0")):
            answers = []
            for name in (image, missing):
                response = client.post(dialect.path, json=dialect.make(dialect.image(name)), headers=theirs)
                require_refusal(dialect, response, name)
                text = response.text.replace(response.headers["x-request-id"], "")
                for part in (name, job, "0" * 32):
                    text = text.replace(part, "")
                answers.append((response.status_code, text))
            assert answers[0] == answers[1]
