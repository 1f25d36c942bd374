"""Prompts over HTTP and a real worker: weights and LoRAs act, and a file says how to make it again."""

from __future__ import annotations

import io
import re

from PIL import Image

from tests.support.running_service import RunningService


def test_the_text_of_a_file_sent_back_makes_the_same_file(service: RunningService) -> None:
    body = {"seed": 7, "num_inference_steps": 3}
    prompt = "a (red:1.8) circle <lora:shapes-sdxl-tint:0.7>"
    job = service.run("txt2img", **body, prompt=prompt, prompt_syntax="a1111")
    assert [lora["id"] for lora in job["receipt"]["loras"]] == ["shapes-sdxl-tint"]
    assert job["prompt_tokens"] == job["receipt"]["prompt_tokens"]
    assert job["prompt_tokens"]["text_encoder"] == {"given": 3, "used": 3}

    file = service.http.get(job["images"][0]["url"]).content
    with Image.open(io.BytesIO(file)) as image:
        text, _, line = image.text["parameters"].rpartition("\n")  # type: ignore[attr-defined]
    again = {"seed": int(re.findall(r"Seed: (\d+)", line)[0]), "num_inference_steps": 3}

    assert (
        service.run("txt2img", **again, prompt=text, prompt_syntax="a1111")["images"][0]["sha256"]
        == (job["images"][0]["sha256"])
    )
    plain = service.run("txt2img", **again, prompt=text)
    assert plain["images"][0]["sha256"] != job["images"][0]["sha256"]
    assert plain["receipt"]["loras"] == []
