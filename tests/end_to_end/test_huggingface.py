"""The unmodified `huggingface_hub` package from PyPI against the running service: images and errors."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient, ImageToImageTargetSize, InferenceClient
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError
from PIL import Image

from tests.support.images import encode_image, solid_image
from tests.support.running_service import RunningService
from tests.support.waiting import wait_until

PROMPT = "a red circle on a blue background"


@pytest.fixture(scope="module")
def client(service: RunningService) -> InferenceClient:
    return InferenceClient(model=f"{service.url}/hf/models/shapes-sdxl", token="none")


def test_an_image_comes_from_a_prompt(client: InferenceClient, service: RunningService) -> None:
    image = client.text_to_image(
        PROMPT,
        negative_prompt="green",
        width=64,
        height=96,
        num_inference_steps=3,
        guidance_scale=4.0,
        scheduler="euler_a",
        seed=7,
        extra_body={"loras": [{"name": "shapes-sdxl-tint", "scale": 0.5}]},
    )

    native = service.generate(
        "txt2img",
        negative_prompt="green",
        width=64,
        height=96,
        num_inference_steps=3,
        guidance_scale=4.0,
        scheduler="euler_a",
        seed=7,
        loras=[{"name": "shapes-sdxl-tint", "scale": 0.5}],
    )
    assert (np.asarray(image.convert("RGB")) == np.asarray(native)).all()


def test_an_image_comes_from_an_image(client: InferenceClient, tmp_path: Path) -> None:
    content, path = encode_image(solid_image("blue")), tmp_path / "blue.png"
    path.write_bytes(content)
    size = ImageToImageTargetSize(width=96, height=64)

    images = [
        client.image_to_image(
            source,
            prompt=PROMPT,
            negative_prompt="green",
            target_size=size,
            strength=0.9,
            num_inference_steps=3,
            seed=3,
            guidance_scale=3.0,
        )
        for source in (content, path, str(path))
    ]

    assert [image.size for image in images] == [(96, 64)] * 3
    assert len({image.tobytes() for image in images}) == 1


def test_the_asynchronous_client_works_with_the_default_model(service: RunningService) -> None:
    async def generate() -> Image.Image:
        async with AsyncInferenceClient(model=f"{service.url}/hf", token="none") as client:
            image: Image.Image = await client.text_to_image(PROMPT, width=64, height=64, num_inference_steps=3)
            return image

    assert asyncio.run(generate()).size == (64, 64)


def test_a_client_that_gives_up_leaves_no_job_running(service: RunningService) -> None:
    client = InferenceClient(model=f"{service.url}/hf/models/shapes-sdxl", token="none", timeout=0.5)
    with pytest.raises(InferenceTimeoutError):
        client.text_to_image(
            PROMPT,
            width=128,
            height=128,
            num_inference_steps=100,
            extra_body={"metadata": {"user": "impatient-hf"}},
        )

    def statuses() -> list[str]:
        jobs = service.http.get("/v1/jobs?metadata.user=impatient-hf").json()["data"]
        return [job["status"] for job in jobs]

    wait_until(lambda: statuses() == ["cancelled"])


def test_the_clients_exception_says_what_to_change(client: InferenceClient) -> None:
    with pytest.raises(HfHubHTTPError, match=r"parameters\.width: must be a multiple of 8, got 68"):
        client.text_to_image(PROMPT, width=68)
    with pytest.raises(HfHubHTTPError, match=r"parameters\.target_size\.height: must be a multiple of 8, got 65"):
        client.image_to_image(b"x", prompt=PROMPT, target_size=ImageToImageTargetSize(width=64, height=65))
    with pytest.raises(HfHubHTTPError, match=r"inputs: is not an image"):
        client.image_to_image(b"text" * 100, prompt=PROMPT)
    with pytest.raises(HfHubHTTPError, match=r"parameters\.prompt: is required"):
        client.image_to_image(encode_image(solid_image("blue")))
