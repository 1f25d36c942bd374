"""Diffusers used by hand, for `bench.overhead` and `bench.steps`: a pipeline a task, LoRAs kept loaded.

Also holds the orders that every rival answers. Knows neither HTTP nor Darkroom's worker.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image, ImageDraw

from contracts.catalogue.reader import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from worker.runtime.warnings import silence_known_warnings

STEPS, GUIDANCE, SIDE, STRENGTH = 12, 3.0, 64, 0.6
MIXES = ("prompts", "tasks", "LoRAs")  # LoRAs last: once one is loaded, every later call pays for it
#: How long a single request waits for others to share its call.
MAX_WAIT_MILLISECONDS = 20
_TASKS = ("txt2img", "img2img", "inpaint")
_PIPELINES = {"shapes-sdxl": "StableDiffusionXL", "shapes-flux": "Flux"}
_LORAS = (None, "shapes-sdxl-tint", "shapes-sdxl-stripes", "shapes-sdxl-outline")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan", "white", "black")


@dataclass(frozen=True)
class Order:
    """One image to generate; `seed` is for rivals that do not choose it themselves."""

    prompt: str
    seed: int
    task: str = "txt2img"
    lora: str | None = None
    model: str = "shapes-sdxl"
    steps: int = STEPS
    strength: float = STRENGTH
    priority: str = "normal"


def make_orders(mix: str, count: int, first: int = 0) -> list[Order]:
    """Orders with different prompts; the mixes "tasks" and "LoRAs" also change these from one to the next."""
    return [
        Order(
            f"a {COLOURS[number % 8]} {('circle', 'square', 'triangle')[number // 64 % 3]} on a "
            f"{COLOURS[(number // 8 + number + 1) % 8]} background",
            number,
            _TASKS[number % len(_TASKS)] if mix == "tasks" else "txt2img",
            _LORAS[number % len(_LORAS)] if mix == "LoRAs" else None,
        )
        for number in range(first, first + count)
    ]


def make_inputs(width: int = SIDE, height: int = SIDE) -> tuple[Image.Image, Image.Image]:
    """The input image of img2img and inpainting, and the mask, which is white where inpainting generates."""
    image, mask = Image.new("RGB", (width, height), "blue"), Image.new("L", (width, height), 0)
    middle = (width // 4, height // 4, width * 3 // 4 - 1, height * 3 // 4 - 1)
    ImageDraw.Draw(image).ellipse(middle, fill="red")
    ImageDraw.Draw(mask).rectangle(middle, fill=255)
    return image, mask


def to_png(image: Image.Image) -> bytes:
    """A PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def to_base64(image: Image.Image) -> str:
    """A PNG file as base64."""
    return base64.b64encode(to_png(image)).decode()


def to_body(order: Order) -> dict[str, Any]:
    """The order as Darkroom's request."""
    body: dict[str, Any] = {"prompt": order.prompt, "num_inference_steps": order.steps, "guidance_scale": GUIDANCE}
    body |= {"model": order.model, "priority": order.priority}
    if order.lora is not None:
        body["loras"] = [{"name": order.lora}]
    image, mask = map(to_base64, make_inputs())
    if order.task != "txt2img":
        body |= {"image": image, "strength": order.strength}
    return body | ({"mask_image": mask} if order.task == "inpaint" else {})


def compute_alike() -> None:
    """One thread, and the arithmetic of workers: a seed gives the same bytes. `MKL_CBWR=AUTO` lifts the latter."""
    os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
    silence_known_warnings()
    torch.set_num_threads(1)


class DiffusersLoop:
    """Models of the built-in catalogue, each loaded when it is first used."""

    def __init__(self) -> None:
        self._catalogue = read_catalogue(BUILT_IN_CATALOGUE)
        self._pipelines: dict[str, dict[str, Any]] = {}
        self._loaded: set[str] = set()
        self._active: dict[str, str | None] = {}
        self._image, self._mask = make_inputs()

    def generate(self, orders: Sequence[Order]) -> list[Image.Image]:
        """The images, in order; orders that differ in prompt and seed only share one pipeline call."""
        images: dict[int, Image.Image] = {}
        same = [replace(order, prompt="", seed=0, priority="") for order in orders]
        for shared in dict.fromkeys(same):
            places = [place for place, order in enumerate(same) if order == shared]
            self._activate(shared.model, shared.lora)
            images |= zip(places, self._call(shared, [orders[place] for place in places]), strict=True)
        return [images[place] for place in range(len(orders))]

    def _load(self, model: str) -> dict[str, Any]:
        if model not in self._pipelines:
            folder = self._catalogue.place(self._catalogue.model(model))
            text, *others = (f"{_PIPELINES[model]}{kind}Pipeline" for kind in ("", "Img2Img", "Inpaint"))
            base = getattr(diffusers, text).from_pretrained(folder, dtype=torch.float32)
            made = [base, *(getattr(diffusers, name)(**base.components) for name in others)]
            self._pipelines[model] = dict(zip(_TASKS, made, strict=True))
            for pipeline in self._pipelines[model].values():
                pipeline.set_progress_bar_config(disable=True)
        return self._pipelines[model]

    def _call(self, shared: Order, orders: Sequence[Order]) -> list[Image.Image]:
        takes_its_size = (shared.model, shared.task) == ("shapes-sdxl", "img2img")  # from the input image
        options: dict[str, Any] = {} if takes_its_size else {"width": SIDE, "height": SIDE}
        if shared.model == "shapes-flux":
            options["max_sequence_length"] = 64  # as in the catalogue; tokens cost time
        if shared.task != "txt2img":
            options |= {"image": [self._image] * len(orders), "strength": shared.strength}
        if shared.task == "inpaint":
            options["mask_image"] = [self._mask] * len(orders)
        with torch.inference_mode():
            result = self._load(shared.model)[shared.task](
                prompt=[order.prompt for order in orders],
                num_inference_steps=shared.steps,
                guidance_scale=GUIDANCE,
                generator=[torch.Generator().manual_seed(order.seed) for order in orders],
                **options,
            )
        return list(result.images)

    def _activate(self, model: str, lora: str | None) -> None:
        """Load each adapter once, then switch between them, as diffusers' documentation recommends."""
        if lora == self._active.get(model):
            return
        base = self._load(model)["txt2img"]
        if lora is None:
            base.disable_lora()
        else:
            if lora not in self._loaded:
                path = Path(str(self._catalogue.place(self._catalogue.lora(lora))))
                base.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=lora)
                self._loaded.add(lora)
            base.enable_lora()
            base.set_adapters([lora])
        self._active[model] = lora
