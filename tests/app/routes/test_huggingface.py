"""Hugging Face's inference calls: how requests are translated, what is refused and how, and who may see what."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore
from contracts.queue.client import JobQueue
from tests.support.images import encode_solid
from tests.support.scripted_worker import ScriptedWorker

MODEL = "/hf/models/shapes-sdxl"
PROMPT = "a red circle"
IMAGE = base64.b64encode(encode_solid("RGB", (64, 64), "blue")).decode()


def error_of(response: httpx2.Response, status: int = 422) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert body.keys() - {"estimated_time"} == {"error", "error_type"}
    error: str = body["error"]
    return error


def test_the_parameters_of_a_prompt_are_those_of_a_job(client: TestClient, worker: ScriptedWorker) -> None:
    parameters = {
        "negative_prompt": "green", "width": 96, "height": 64, "num_inference_steps": 3, "guidance_scale": 4.5,
        "scheduler": "euler_a", "seed": 0, "num_images_per_prompt": 1, "loras": None, "metadata": {"a": "b"},
    }  # fmt: skip
    body = {"inputs": PROMPT, "parameters": parameters, "options": {"wait_for_model": True, "use_cache": False}}
    with worker.completing_next() as jobs:
        response = client.post(MODEL, json=body, headers={"Accept": "image/webp, image/png"})

    assert (response.status_code, response.headers["content-type"]) == (200, "image/webp"), response.text
    (job,) = jobs
    made = job.parameters
    assert (made.model, made.prompt, made.negative_prompt) == ("shapes-sdxl", PROMPT, "green")
    assert (made.width, made.height, made.num_inference_steps, made.guidance_scale) == (96, 64, 3, 4.5)
    assert (made.scheduler, made.seed, made.num_images, job.metadata) == ("euler_a", 0, 1, {"a": "b"})
    assert (response.headers["x-seed"], job.cancel_on_disconnect) == ("0", True)
    assert response.headers["location"].endswith(f"/v1/jobs/{job.id}")


@pytest.mark.parametrize("path", ["/hf", "/hf/shapes-sdxl", MODEL])
def test_an_image_is_sent_as_inputs_and_its_size_as_an_object(
    client: TestClient, worker: ScriptedWorker, path: str
) -> None:
    parameters = {"prompt": PROMPT, "target_size": {"width": 128, "height": 96}, "strength": 0.5}
    with worker.completing_next() as jobs:
        response = client.post(path, json={"inputs": IMAGE, "parameters": parameters})

    assert response.status_code == 200, response.text
    made = jobs[0].parameters
    assert (made.task, made.width, made.height, made.strength) == ("img2img", 128, 96, 0.5)


def test_a_parameter_that_cannot_act_is_refused_by_its_own_name(
    client: TestClient, queue: JobQueue, subtests: pytest.Subtests
) -> None:
    for parameters, named in [
        ({"num_images": 2}, "parameters.num_images: must be 1"),
        ({"num_images_per_prompt": 2}, "parameters.num_images_per_prompt: must be 1"),
        (
            {"num_images": 3, "num_images_per_prompt": 1},
            "parameters.num_images_per_prompt: contradicts num_images",
        ),
        ({"width": 68}, "parameters.width: must be a multiple of 8"),
        ({"target_size": {"width": 68, "height": 64}}, "parameters.target_size.width: must be a multiple of 8"),
        ({"target_size": {"width": 64}, "width": 72}, "parameters.target_size.width: contradicts width"),
        ({"target_size": {"depth": 64}}, "parameters.target_size: must have width and height"),
        ({"cfg": 3}, "parameters.cfg: is not a field of this request; did you mean guidance_scale?"),
        ({"scheduler": "flow_euler"}, "parameters.scheduler: "),
        ({"loras": [{"name": "nobody"}]}, "parameters.loras.0.name: "),
        ({"references": [IMAGE]}, "model: shapes-sdxl (sdxl) does not support edit"),
        ({"seed": "7"}, "parameters.seed: must be a whole number"),
        ({"response_format": "url"}, "parameters.response_format: the answer is the image itself"),
        ({"model": "shapes-sd3"}, "parameters.model: the URL names the model"),
        ({"webhook": {"url": "https://127.0.0.1:6379/"}}, "parameters.webhook.url: "),
    ]:
        with subtests.test(parameters=parameters, named=named):
            response = client.post(MODEL, json={"inputs": PROMPT, "parameters": parameters})

            assert named in error_of(response)
            assert queue.connection.keys("*") == []


def test_inputs_that_are_neither_a_prompt_nor_an_image_are_refused(
    client: TestClient, queue: JobQueue, subtests: pytest.Subtests
) -> None:
    for body, named in [
        ({"inputs": ""}, "inputs: must have at least 1 characters"),
        ({"inputs": "x" * 10_001}, "inputs: must have at most 10000 characters"),
        ({"inputs": [PROMPT]}, "inputs: must be a string"),
        ({"inputs": PROMPT, "parameters": []}, "parameters: must be a JSON object"),
        ({"inputs": PROMPT, "stream": True}, "stream: is not a field of this request"),
        ({"inputs": PROMPT, "options": {"use_gpu": True}}, "options.use_gpu: is not a field"),
        ({"inputs": IMAGE}, "parameters.prompt: is required"),
        ({"inputs": IMAGE[:80], "parameters": {"prompt": PROMPT}}, "inputs: is corrupt or truncated"),
        ({"inputs": "a cat", "parameters": {"prompt": PROMPT}}, "inputs: is not an image"),
        ({"inputs": "/etc/passwd", "parameters": {"prompt": PROMPT}}, "inputs: is a path or a file name"),
        ({"inputs": "https://169.254.169.254/", "parameters": {"prompt": PROMPT}}, "inputs: URLs are not fetched"),
        ({"inputs": "job:00/0", "parameters": {"prompt": PROMPT}}, "inputs: job 00 does not exist"),
    ]:
        with subtests.test(body=body, named=named):
            response = client.post(MODEL, json=body)

            assert named in error_of(response, response.status_code)
            assert response.status_code in (415, 422)
            assert queue.connection.keys("*") == []


def test_bodies_that_are_not_json_are_refused_in_the_same_form(client: TestClient) -> None:
    png = base64.b64decode(IMAGE)

    alone = client.post(MODEL, content=png, headers={"Content-Type": "image/png"})
    assert "parameters.prompt: is required" in error_of(alone)
    text = client.post(MODEL, content=b"a cat", headers={"Content-Type": "text/plain"})
    assert "send JSON" in error_of(text, 415)
    broken = client.post(MODEL, content=b'{"inputs":', headers={"Content-Type": "application/json"})
    assert "not valid JSON" in error_of(broken, 400)
    deep = client.post(MODEL, content=b'{"inputs":' + b"[" * 10**5, headers={"Content-Type": "application/json"})
    assert error_of(deep, 400)
    long = json.dumps({"inputs": PROMPT, "parameters": {"prompt": "x" * 2**19}})
    assert error_of(client.post(MODEL, content=long, headers={"Content-Type": "application/json"}), 413)


def test_a_format_that_no_image_is_made_in_is_refused(client: TestClient) -> None:
    response = client.post(MODEL, json={"inputs": PROMPT}, headers={"Accept": "application/json"})

    assert "Accept: must name image" in error_of(response)
    refused = client.post(MODEL, json={"inputs": PROMPT}, headers={"Accept": "image/png;q=0, text/html"})
    assert "Accept: must name image" in error_of(refused)


def test_an_unknown_model_is_not_found(client: TestClient) -> None:
    assert "'nobody' does not exist" in error_of(client.post("/hf/models/nobody", json={"inputs": PROMPT}), 404)
    assert error_of(client.get(MODEL), 405)


def test_a_full_queue_is_told_as_a_service_that_is_not_ready(api_settings: ApiSettings) -> None:
    settings = api_settings.model_copy(update={"max_waiting": 1})
    with TestClient(create_app(settings)) as client:
        assert client.post("/v1/txt2img", json={"prompt": PROMPT}).status_code == 202

        response = client.post(MODEL, json={"inputs": PROMPT})

    assert "the queue is full" in error_of(response, 503)
    assert response.json()["estimated_time"] == float(response.headers["retry-after"])


def test_keys_and_owners_are_those_of_all_calls(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    keys = ApiKeyStore(queue.connection)
    mine, theirs = ({"Authorization": f"Bearer {keys.create(name)[1]}"} for name in ("mine", "theirs"))
    job = client.post("/v1/txt2img", json={"prompt": PROMPT}, headers=mine).json()["id"]
    worker.complete(worker.claim())
    body = {"inputs": f"job:{job}/0", "parameters": {"prompt": PROMPT}}

    assert "no API key" in error_of(client.post(MODEL, json=body), 401)
    assert f"inputs: job {job} does not exist" in error_of(client.post(MODEL, json=body, headers=theirs))
    with worker.completing_next():
        assert client.post(MODEL, json=body, headers=mine).status_code == 200


def test_a_call_with_the_same_idempotency_key_gets_the_same_image(
    client: TestClient, worker: ScriptedWorker
) -> None:
    headers = {"Idempotency-Key": "hf-1"}
    with worker.completing_next():
        first = client.post(MODEL, json={"inputs": PROMPT}, headers=headers)

    second = client.post(MODEL, json={"inputs": PROMPT}, headers=headers)

    assert (second.headers["location"], second.content) == (first.headers["location"], first.content)
    assert second.headers["idempotency-replayed"] == "true"


def test_a_job_that_fails_is_an_error_with_its_code(client: TestClient, queue: JobQueue) -> None:
    def cancel() -> None:
        while not (waiting := client.get("/v1/jobs").json()["data"]):
            pass
        queue.cancel(waiting[0]["id"])

    thread = threading.Thread(target=cancel)
    thread.start()
    response = client.post(MODEL, json={"inputs": PROMPT})
    thread.join(60)

    assert "was cancelled" in error_of(response, 502)
    assert response.json()["error_type"] == "cancelled"
