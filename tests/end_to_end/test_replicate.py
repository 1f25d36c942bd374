"""The unmodified `replicate` package from PyPI against the running service: predictions, files, webhooks."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.webhook import Webhooks

from tests.support.images import encode_image, solid_image
from tests.support.receiver import receiving
from tests.support.running_service import RunningService

PROMPT = "a red circle on a blue background"
MODEL = "darkroom/shapes-sdxl"
#: A prediction of few steps.
INPUT = {"prompt": PROMPT, "num_inference_steps": 3}


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[Client]:
    client = Client(api_token="none", base_url=f"{service.url}/replicate", trust_env=False)
    client.poll_interval = 0.05
    yield client
    client._client.close()


def image_at(client: Client, url: str) -> Image.Image:
    return Image.open(io.BytesIO(client._client.get(url).raise_for_status().content))


def test_a_run_of_a_model_gives_the_images_of_the_native_call(client: Client, service: RunningService) -> None:
    fields = {**INPUT, "width": 64, "height": 96, "seed": 7}

    urls = list(client.run(MODEL, input={**fields, "num_outputs": 2}))

    assert [image_at(client, url).size for url in urls] == [(64, 96)] * 2
    native = service.run("txt2img", num_images=2, **fields)
    assert client._client.get(urls[1]).content == service.bytes_of(native, 1)


def test_a_version_runs_from_an_uploaded_file_and_from_an_output(
    client: Client, service: RunningService, tmp_path: Path
) -> None:
    version = client.models.get(MODEL).latest_version
    assert version is not None
    schema = version.openapi_schema["components"]["schemas"]["Input"]
    assert {"prompt", "num_inference_steps", "loras", "mask_image"} <= schema["properties"].keys()
    path = tmp_path / "blue.png"
    path.write_bytes(encode_image(solid_image("blue")))

    with path.open("rb") as image:
        first = client.run(f"{MODEL}:{version.id}", input={**INPUT, "image": image, "prompt_strength": 0.9})
    (output,) = client.run(MODEL, input={**INPUT, "image": next(iter(first)), "output_format": "jpg"})

    assert image_at(client, output).format == "JPEG"
    newest = client.predictions.list().results[0]
    assert (newest.output, newest.input and newest.input["output_format"]) == ([output], "jpeg")
    assert service.fetch(newest.id)["task"] == "img2img"


def test_files_are_shown_and_forgotten(client: Client) -> None:
    file = client.files.create(io.BytesIO(encode_image(solid_image("green"))))

    assert client.files.get(file.id).checksums == {"sha256": file.id}
    assert client.files.list()[0].id == file.id
    assert client.files.delete(file.id)
    with pytest.raises(ReplicateError, match="does not exist"):
        client.files.get(file.id)
    with pytest.raises(ReplicateError, match=r"input\.image: this upload does not exist"):
        client.run(MODEL, input={"prompt": PROMPT, "image": file.urls["get"]})


def test_a_prediction_is_followed_by_its_logs_and_cancelled(client: Client) -> None:
    prediction = client.predictions.create(
        model=MODEL, input={"prompt": PROMPT, "num_inference_steps": 100, "width": 128, "height": 128}
    )
    assert prediction.status in ("starting", "processing")
    while prediction.progress is None:
        time.sleep(0.05)
        prediction.reload()
    assert prediction.progress.total == 100

    prediction.cancel()
    prediction.wait()

    assert (prediction.status, prediction.output) == ("canceled", None)


def test_a_stream_has_logs_and_ends_with_the_output(client: Client) -> None:
    events = list(client.stream(MODEL, input={**INPUT, "seed": 3}))

    kinds = [event.event.value for event in events]
    assert kinds[-2:] == ["output", "done"]
    assert set(kinds[:-2]) == {"logs"}
    assert events[0].data == "Using seed: 3"
    assert image_at(client, events[-2].data).size == (64, 64)


def test_the_asynchronous_client_works_too(service: RunningService) -> None:
    async def generate() -> Any:
        client = Client(api_token="none", base_url=f"{service.url}/replicate", trust_env=False)
        async with client._async_client:
            return await client.async_run(MODEL, input={**INPUT, "response_format": "b64_json"})

    (output,) = asyncio.run(generate())
    assert Image.open(io.BytesIO(output.read())).size == (64, 64)


def test_the_clients_exceptions_say_what_is_wrong(client: Client) -> None:
    with pytest.raises(ReplicateError, match=r"input\.width: must be a multiple of 8, got 68"):
        client.run(MODEL, input={"prompt": PROMPT, "width": 68})
    with pytest.raises(ReplicateError, match="'stability-ai/sdxl' does not exist"):
        client.run("stability-ai/sdxl", input={"prompt": PROMPT})
    late = {"prompt": PROMPT, "num_inference_steps": 100, "width": 128, "height": 128, "deadline_seconds": 1}
    with pytest.raises(ModelError, match="deadline_exceeded"):
        client.run(MODEL, input=late)


def test_a_webhook_has_the_prediction_and_a_signature(client: Client) -> None:
    with receiving() as receiver:
        url = f"{receiver.url}/predictions"
        prediction = client.models.predictions.create(
            model=MODEL, input=INPUT, webhook=url, webhook_events_filter=["completed"]
        )
        (message,) = receiver.wait_for("/predictions", timeout_seconds=60)

    secret = client.webhooks.default.secret()
    Webhooks.validate(headers=dict(message.headers), body=message.body.decode(), secret=secret)
    prediction.reload()
    posted = httpx.Response(200, content=message.body).json()
    assert (posted["id"], posted["status"], posted["model"]) == (prediction.id, "succeeded", MODEL)
    assert (posted["version"], len(posted["output"])) == (prediction.version, 1)
