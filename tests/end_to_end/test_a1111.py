"""The unmodified `webuiapi` package from PyPI against the running service: images, progress, interrupt."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator

import pytest
from webuiapi import ControlNetUnit, WebUIApi

from tests.support.images import draw_shape, left_half_mask, to_data_url
from tests.support.running_service import RunningService
from tests.support.waiting import wait_until

PROMPT = "a red circle on a blue background"
SMALL = {"width": 64, "height": 64}


@pytest.fixture(scope="module")
def api(service: RunningService) -> Iterator[WebUIApi]:
    api = WebUIApi(baseurl=f"{service.url}/sdapi/v1")
    api.session.trust_env = False
    yield api
    api.session.close()


def file_of(answer: object, number: int = 0) -> bytes:
    return base64.b64decode(answer.json["images"][number])  # type: ignore[attr-defined]


def test_images_are_those_of_the_native_call_with_the_translated_fields(
    api: WebUIApi, service: RunningService
) -> None:
    prompt = f"{PROMPT} <lora:shapes-sdxl-tint:0.5>"

    answer = api.txt2img(
        prompt=prompt, **SMALL, seed=7, steps=3, cfg_scale=3.0, sampler_name="Euler", scheduler="Karras", n_iter=2
    )

    fields = {"num_inference_steps": 3, "guidance_scale": 3.0, "scheduler": "euler_karras", "num_images": 2}
    native = service.run("txt2img", prompt=prompt, prompt_syntax="a1111", seed=7, **SMALL, **fields)
    assert [file_of(answer, number) for number in (0, 1)] == [service.bytes_of(native, n) for n in (0, 1)]
    assert (answer.info["all_seeds"], answer.info["sampler_name"]) == ([7, 8], "Euler")
    assert answer.info["infotexts"][1] == answer.images[1].info["parameters"]
    assert "Seed: 8" in api.png_info(answer.images[1]).info


def test_an_image_a_mask_and_a_unit_have_their_effect(api: WebUIApi, service: RunningService) -> None:
    image, mask = draw_shape(), left_half_mask()
    common = {"prompt": PROMPT, "seed": 7, **SMALL, "steps": 2, "cfg_scale": 3.0}

    changed = api.img2img(images=[image], denoising_strength=0.5, **common)
    repainted = api.img2img(images=[image], mask_image=mask, inpainting_fill=1, mask_blur=0, **common)
    unit = ControlNetUnit(image=image, model="shapes-sdxl-silhouette")
    controlled = api.txt2img(controlnet_units=[unit], **common)

    native = {"prompt": PROMPT, "prompt_syntax": "a1111", "seed": 7, **SMALL, "num_inference_steps": 2}
    native |= {"guidance_scale": 3.0, "scheduler": "euler_a"}
    given = {"image": to_data_url(image), "fit": "stretch"}
    job = service.run("img2img", **native, **given, strength=0.5)
    assert file_of(changed) == service.bytes_of(job)
    job = service.run(
        "inpaint", **native, **given, mask_image=to_data_url(mask), strength=0.75, padding_mask_crop=0
    )
    assert file_of(repainted) == service.bytes_of(job)
    control = {"controlnet": "shapes-sdxl-silhouette", "image": to_data_url(image)}
    job = service.run("controlnet", **native, controls=[control], fit="pad")
    assert file_of(controlled) == service.bytes_of(job)


def test_progress_is_shown_while_an_image_is_made_and_interrupt_ends_it(api: WebUIApi) -> None:
    errors: list[RuntimeError] = []

    def generate() -> None:
        caller = WebUIApi(baseurl=api.baseurl)
        caller.session.trust_env = False
        try:
            caller.txt2img(prompt=PROMPT, **SMALL, steps=100, batch_size=2)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=generate)
    thread.start()
    wait_until(lambda: api.get_progress()["state"]["sampling_step"] > 0)
    shown = api.get_progress()
    api.interrupt()
    thread.join(60)

    assert 0 < shown["progress"] < 1
    assert shown["state"]["sampling_steps"] == 100
    assert [error.args[0] for error in errors] == [502]
    assert api.get_progress()["state"]["job_count"] == 0
