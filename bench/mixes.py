"""The request lists of `bench.overhead`: the same for everybody who is measured. Knows no server."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw

STEPS, GUIDANCE, SIDE, STRENGTH = 12, 3.0, 64, 0.6
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan", "white", "black")
LORAS = (None, "shapes-sdxl-tint", "shapes-sdxl-stripes", "shapes-sdxl-outline")
TASKS = ("txt2img", "img2img", "inpaint")
#: How long a lone request waits for others to share its call, where there are batches.
COMPANY_MILLISECONDS = 20


@dataclass(frozen=True)
class Order:
    """One image that is asked for; `seed` is for those who cannot leave it to the server."""

    prompt: str
    seed: int
    task: str = "txt2img"
    lora: str | None = None


def mixed_prompts(count: int, first: int = 0) -> list[Order]:
    """Different prompts, so that nothing is remembered from one to the next."""
    return [Order(_prompt(number), number) for number in range(first, first + count)]


def mixed_loras(count: int, first: int = 0) -> list[Order]:
    """Each with another LoRA than the one before, or with none."""
    numbers = range(first, first + count)
    return [Order(_prompt(number), number, lora=LORAS[number % len(LORAS)]) for number in numbers]


def mixed_tasks(count: int, first: int = 0) -> list[Order]:
    """Text to image, image to image and inpainting by turns."""
    return [Order(_prompt(number), number, TASKS[number % len(TASKS)]) for number in range(first, first + count)]


#: LoRAs come last: who has loaded one pays for it from then on.
MIXES: dict[str, Callable[..., list[Order]]] = {
    "prompts": mixed_prompts,
    "tasks": mixed_tasks,
    "LoRAs": mixed_loras,
}


def _prompt(number: int) -> str:
    shape = ("circle", "square", "triangle")[number // 64 % 3]
    return f"a {COLOURS[number % 8]} {shape} on a {COLOURS[(number // 8 + number + 1) % 8]} background"


def ground() -> Image.Image:
    """The picture that img2img and inpainting begin with."""
    picture = Image.new("RGB", (SIDE, SIDE), "blue")
    ImageDraw.Draw(picture).ellipse((16, 16, 48, 48), fill="red")
    return picture


def mask() -> Image.Image:
    """White where inpainting paints."""
    picture = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(picture).rectangle((16, 16, 47, 47), fill=255)
    return picture


@lru_cache
def _encoded() -> tuple[str, str]:
    return to_base64(ground()), to_base64(mask())


def to_base64(picture: Image.Image) -> str:
    """A PNG as text."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def to_body(order: Order, batchable: bool) -> dict[str, Any]:
    """The order as Darkroom's request; the image comes back as base64."""
    body: dict[str, Any] = {
        "prompt": order.prompt,
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "batchable": batchable,
        "response_format": "b64_json",
    }
    if order.lora is not None:
        body["loras"] = [{"name": order.lora}]
    if order.task != "txt2img":
        body |= {"image": _encoded()[0], "strength": STRENGTH}
    if order.task == "inpaint":
        body["mask_image"] = _encoded()[1]
    return body
