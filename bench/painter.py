"""Diffusers as a careful author would use it by hand: one set of weights, a pipeline a task, LoRAs kept loaded.

The bare loop of `bench.overhead` and its LitServe server both paint with this. Knows neither HTTP nor Darkroom's
worker.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import diffusers
import torch
from PIL import Image

from bench.mixes import GUIDANCE, SIDE, STEPS, STRENGTH, Order, ground, mask
from contracts.catalogue.catalogue import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE

_PIPELINES = {
    "txt2img": "StableDiffusionXLPipeline",
    "img2img": "StableDiffusionXLImg2ImgPipeline",
    "inpaint": "StableDiffusionXLInpaintPipeline",
}


class Painter:
    """shapes-sdxl, warm."""

    def __init__(self) -> None:
        self._catalogue = read_catalogue(BUILT_IN_CATALOGUE)
        folder = self._catalogue.locate(self._catalogue.model("shapes-sdxl").source)
        self._base = diffusers.StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
        self._pipelines = {
            name: getattr(diffusers, kind)(**self._base.components) for name, kind in _PIPELINES.items()
        }
        for pipeline in self._pipelines.values():
            pipeline.set_progress_bar_config(disable=True)
        self._loaded: set[str] = set()
        self._active: str | None = None
        self._ground, self._mask = ground(), mask()

    def paint(self, orders: Sequence[Order]) -> list[Image.Image]:
        """The images of a batch, in order; those that one call can make are made in one."""
        images: dict[int, Image.Image] = {}

        def kind(place: int) -> tuple[str, str]:
            return orders[place].task, orders[place].lora or ""

        for (task, lora), group in itertools.groupby(sorted(range(len(orders)), key=kind), key=kind):
            places = list(group)
            self._activate(lora or None)
            images |= zip(places, self._call(task, [orders[place] for place in places]), strict=True)
        return [images[place] for place in range(len(orders))]

    def _call(self, task: str, orders: Sequence[Order]) -> list[Image.Image]:
        given: dict[str, Any] = {"width": SIDE, "height": SIDE} if task != "img2img" else {}
        if task != "txt2img":
            given |= {"image": [self._ground] * len(orders), "strength": STRENGTH}
        if task == "inpaint":
            given["mask_image"] = [self._mask] * len(orders)
        with torch.inference_mode():
            painted = self._pipelines[task](
                prompt=[order.prompt for order in orders],
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                generator=[torch.Generator().manual_seed(order.seed) for order in orders],
                **given,
            )
        return list(painted.images)

    def _activate(self, lora: str | None) -> None:
        """As diffusers means it: load each adapter once, then switch between them."""
        if lora == self._active:
            return
        if lora is None:
            self._base.disable_lora()
        else:
            if lora not in self._loaded:
                path = self._catalogue.locate(self._catalogue.lora(lora).source)
                self._base.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=lora)
                self._loaded.add(lora)
            self._base.enable_lora()
            self._base.set_adapters([lora])
        self._active = lora
