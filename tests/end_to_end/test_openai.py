"""The unmodified `openai` package from PyPI against the running service: images, edits, streams, errors."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
from openai import APITimeoutError, AsyncOpenAI, OpenAI, UnprocessableEntityError
from openai.types import Image as Datum
from PIL import Image

from tests.support.images import HOLE, encode_image, mask_with_hole, solid_image
from tests.support.running_service import RunningService
from tests.support.waiting import wait_until

PROMPT = "a red circle on a blue background"
SHORT = {"num_inference_steps": 3}


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[OpenAI]:
    http = httpx2.Client(trust_env=False)
    with OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0, http_client=http) as client:
        yield client


def image_of(datum: Datum) -> Image.Image:
    return decode(datum.b64_json)


def decode(text: str | None) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(str(text), validate=True)))


def test_images_come_from_a_prompt(client: OpenAI, service: RunningService) -> None:
    answer = client.images.generate(prompt=PROMPT, n=2, size="64x96", extra_body={"seed": 7, **SHORT})

    assert answer.data is not None
    assert [image_of(datum).size for datum in answer.data] == [(64, 96)] * 2
    assert (answer.size, answer.output_format, answer.background) == ("64x96", "png", "opaque")
    body = {"num_images": 2, "width": 64, "height": 96, "seed": 7, "prompt": PROMPT, **SHORT}
    native = service.run("txt2img", **body)
    assert base64.b64decode(str(answer.data[1].b64_json)) == service.bytes_of(native, 1)
    job = service.fetch(str(answer.model_extra and answer.model_extra["job"]))
    assert job["receipt"]["seeds"] == [7, 8]


def test_every_supported_field_has_its_effect(client: OpenAI, service: RunningService) -> None:
    answer = client.images.generate(
        prompt=PROMPT,
        model="shapes-flux",
        quality="low",
        output_format="jpeg",
        output_compression=40,
        response_format="url",
        background="auto",
        moderation="low",
        user="u-1",
        extra_body={"scheduler": "flow_unipc", "metadata": {"a": "b"}},
    )

    assert answer.data is not None
    job = service.fetch(str(answer.model_extra and answer.model_extra["job"]))
    parameters = job["receipt"]["parameters"]
    assert (parameters["num_inference_steps"], parameters["output_quality"], parameters["scheduler"]) == (
        6,
        40,
        "flow_unipc",
    )
    assert job["metadata"] == {"a": "b", "user": "u-1"}
    assert (answer.quality, answer.output_format, answer.data[0].b64_json) == ("low", "jpeg", None)
    image = service.http.get(str(answer.data[0].url))
    assert image.headers["content-type"] == "image/jpeg"


def test_a_stream_shows_partial_images_and_ends_with_the_images(client: OpenAI) -> None:
    stream = client.images.generate(
        prompt=PROMPT, stream=True, partial_images=3, size="64x64", extra_body={"num_images": 2, "seed": 7}
    )
    events = list(stream)

    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 6 + ["image_generation.completed"] * 2
    assert {decode(event.b64_json).size for event in events} == {(64, 64)}
    partial = [event for event in events if event.type == "image_generation.partial_image"]
    assert [event.partial_image_index for event in partial] == [0, 0, 1, 1, 2, 2]
    images = [np.asarray(decode(event.b64_json).convert("RGB"), dtype=float) for event in events]
    assert np.corrcoef(images[4].ravel(), images[6].ravel())[0, 1] > 0.8
    plain_answer = client.images.generate(prompt=PROMPT, size="64x64", n=2, extra_body={"seed": 7})
    assert plain_answer.data is not None
    assert [datum.b64_json for datum in plain_answer.data] == [event.b64_json for event in events[-2:]]


def test_an_edit_changes_only_what_is_transparent_in_the_mask(client: OpenAI) -> None:
    image, mask = encode_image(solid_image("blue")), encode_image(mask_with_hole())

    answer = client.images.edit(
        image=("image.png", image, "image/png"),
        mask=("mask.png", mask, "image/png"),
        prompt="a red square on a blue background",
        extra_body={"seed": 3},
    )

    assert answer.data is not None
    edited = np.asarray(image_of(answer.data[0]).convert("RGB"), dtype=int)
    left, upper, right, lower = HOLE
    inside = edited[upper : lower + 1, left : right + 1]
    assert inside[..., 0].mean() > inside[..., 2].mean()
    outside = edited.copy()
    outside[upper : lower + 1, left : right + 1] = (0, 0, 255)
    assert (outside == (0, 0, 255)).all()


def test_an_edit_without_a_mask_starts_from_the_image_and_streams(client: OpenAI, service: RunningService) -> None:
    stream = client.images.edit(
        image=[encode_image(solid_image("blue"))],
        prompt=PROMPT,
        stream=True,
        partial_images=1,
        extra_body={"strength": 0.5, "loras": "[]", "seed": 5, "num_inference_steps": 6},
    )
    events = list(stream)

    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    job = service.fetch(str(events[-1].model_extra and events[-1].model_extra["job"]))
    assert (job["task"], job["receipt"]["parameters"]["strength"]) == ("img2img", 0.5)


def test_a_variation_starts_from_the_image_alone(client: OpenAI, service: RunningService) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):  # by the package, which still has it
        answer = client.images.create_variation(
            image=encode_image(solid_image("blue")), n=2, response_format="b64_json", extra_body=SHORT
        )

    assert answer.data is not None
    assert [image_of(datum).size for datum in answer.data] == [(64, 64)] * 2
    job = service.fetch(str(answer.model_extra and answer.model_extra["job"]))
    assert (job["task"], job["receipt"]["parameters"]["prompt"].strip()) == ("img2img", "")


def test_the_clients_exception_says_what_to_change(client: OpenAI) -> None:
    with pytest.raises(UnprocessableEntityError, match="must be a multiple of 8, got 68") as caught:
        client.images.generate(prompt=PROMPT, size="68x64")

    assert (caught.value.param, caught.value.code) == ("size", "invalid_request")
    assert caught.value.type == "invalid_request_error"


def test_the_client_lists_models(client: OpenAI) -> None:
    assert "shapes-sd3" in [model.id for model in client.models.list()]
    assert client.models.retrieve("shapes-flux").id == "shapes-flux"


def test_the_asynchronous_client_works_too(service: RunningService) -> None:
    async def generate() -> int:
        http = httpx2.AsyncClient(trust_env=False)
        async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none", http_client=http) as client:
            calls = [client.images.generate(prompt=PROMPT, extra_body=SHORT) for _ in range(3)]
            answers = await asyncio.gather(*calls)
            return sum(len(answer.data or ()) for answer in answers)

    assert asyncio.run(generate()) == 3


def test_a_client_that_gives_up_has_made_one_job_and_leaves_none_running(
    client: OpenAI, service: RunningService
) -> None:
    def jobs() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = service.http.get("/v1/jobs?metadata.user=impatient").json()["data"]
        return found

    fields = {"num_inference_steps": 100}
    impatient = client.with_options(timeout=0.5, max_retries=2)
    with pytest.raises(APITimeoutError):
        impatient.images.generate(prompt=PROMPT, n=2, size="128x128", user="impatient", extra_body=fields)

    wait_until(lambda: [job["status"] for job in jobs()] == ["cancelled"])
