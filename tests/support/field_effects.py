"""One field at a time: of two requests that differ in it the images differ, or the request is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import ALL_FAMILIES, Mode, task_of
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.errors import InvalidRequest
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import REQUESTS
from contracts.storage import Storage
from tests.support.cascade import CASCADE
from tests.support.images import encode_image
from tests.support.jobs import model_of
from tests.support.refiner import REFINER

Pixels = npt.NDArray[np.int16]
#: Runs a job that must complete; returns its first image.
Generate = Callable[[JobParameters], Pixels]

#: Fields that decide how a job is made and delivered, not what its image shows.
DELIVERY = frozenset(
    {"model", "task", "num_images", "batchable", "output_format", "output_quality", "previews", "keep_latents",
     "response_format", "priority", "deadline_seconds", "webhook", "metadata"}
)  # fmt: skip
#: Fields whose effect needs more than another value: names of files, how prompts are read, what their words stand
#: for, and how control images are made. Tests of their own show it.
ELSEWHERE = frozenset(
    {"controls.controlnet", "controls.preprocess", "controls.preprocess_options", "controls.mode",
     "cascade.model", "prompt_syntax", "long_prompt",
     "textual_inversions", "vae", "check_step"}
)  # fmt: skip
#: Another value of each field that has one value worth trying. Language models read no padding, so only a length
#: that cuts the prompt changes their images. Those of controls, images and schedulers are below.
_OTHER: dict[str, list[Any]] = {
    "prompt": ["a blue square on a white background"],
    "class_label": [8],
    "prompt_2": ["a green star on a black background"],
    "prompt_3": ["a green star on a black background"],
    "negative_prompt": ["a red circle on a blue background"],
    "width": [80],
    "height": [80],
    "layers": [2],
    "num_inference_steps": [5],
    "guidance_scale": [0.5, 1, 6],
    "true_cfg_scale": [0.5, 3],
    "guidance_rescale": [0.7],
    "dynamic_thresholding": [{"ratio": 0.5}, {"max_value": 1}, {"ratio": 0.5, "max_value": 1}],
    "guidance": [{"kind": "apg", "norm_threshold": 1}, {"kind": "pag"}, {"kind": "slg", "start": 0, "stop": 1}],
    "clip_skip": [1],
    "max_sequence_length": [8],
    "original_size": [(32, 32)],
    "crops_coords_top_left": [(24, 24)],
    "target_size": [(160, 160)],
    "seed": [8],
    "speed": ["fast"],
    "strength": [0.25],
    "image": ["inputs/other.png"],
    "mask_image": ["inputs/other_mask.png"],
    "control_image": ["inputs/other_control.png"],
    "references": [["inputs/other.png"]],
    "mask_blur": [6],
    "padding_mask_crop": [4],
    "fit": ["contain", "pad", "stretch"],
}
_CONTROL_OTHER: dict[str, Any] = {
    "image": "inputs/other_control.png",
    "conditioning_scale": 0.3,
    "guidance_start": 0.5,
    "guidance_end": 0.5,
}
_CASCADE_OTHER: dict[str, Any] = {
    "steps": 3,
    "guidance_scale": 1,
    "strength": 1,
    "noise_level": 100,
    "dynamic_thresholding": {"ratio": 0.5, "max_value": 2},
}
#: Every field that is varied here.
VARIED = frozenset(
    {
        *_OTHER,
        *(f"controls.{name}" for name in _CONTROL_OTHER),
        *(f"cascade.{name}" for name in _CASCADE_OTHER),
        "loras",
        "ip_adapters",
        "refiner",
        "cascade",
        "hires",
        "scheduler",
    }
)
#: Name -> fields of the request from which one is varied.
BASES: dict[str, dict[str, Any]] = {
    "usual": {},
    "without guidance": {"guidance_scale": 1},
    "true guidance": {"true_cfg_scale": 2},
    "ten steps": {"num_inference_steps": 10, "strength": 0.9},
    "wide images": {"image": "inputs/wide.png", "mask_image": "inputs/wide_mask.png", "width": 64, "height": 64},
    # So strong a guidance predicts pixels out of range.
    "two stages": {"cascade": {"model": CASCADE, "steps": 4, "guidance_scale": 20}},
}
#: Bases that only some modes have -> the field that these have.
_NEEDS = {"wide images": "image", "two stages": "cascade"}
#: Fields that are varied from a base that was made for them; all are varied from the others. In three steps or
#: fewer some schedulers are the same.
_ONLY = {"ten steps": {"speed", "image", "strength", "scheduler"}, "wide images": {"fit", "width", "height"}}


@dataclass(frozen=True)
class Variation:
    """A request that differs in one field from its base, and what came of it.

    Attributes:
        result: `changed`, `refused: …`, or `SAME` where the field was ignored.
    """

    family: str
    mode: Mode
    base: str
    field: str
    value: object
    result: str = ""

    def __str__(self) -> str:
        names = f"{self.family:12} {self.mode:19} {self.base:17} {self.field:30}"
        return f"{names} {str(self.value)[:40]:41} {self.result}"


@dataclass
class FieldEffects:
    """Varies fields of the family's small model.

    Attributes:
        generate: the one place where jobs are run.
        steps: of the base, where it does not name them.
    """

    catalogue: Catalogue
    generate: Generate
    steps: int = 4
    _images: dict[str, Image.Image] = field(default_factory=lambda: _draw_inputs())

    def store_inputs(self, storage: Storage) -> None:
        """Write the images that the requests name."""
        for key, image in self._images.items():
            storage.write(key, encode_image(image))

    def try_all(self, family: str, mode: Mode, base: str, *, schedulers: bool) -> Iterator[Variation]:
        """Yield what comes of each field, varied alone; nothing where the model refuses the base itself."""
        fields = self._base(family, mode, base)
        if _NEEDS.get(base, "prompt") not in {"prompt", *fields}:
            return
        try:
            before = self.generate(self._job(family, mode, fields))
        except InvalidRequest:
            return
        for name, value, changed in self._variations(family, mode, fields, schedulers=schedulers):
            if name in _ONLY.get(base, {name}):
                yield Variation(family, mode, base, name, value, self._result(family, mode, before, changed))

    def _result(self, family: str, mode: Mode, before: Pixels, changed: dict[str, Any]) -> str:
        try:
            after = self.generate(self._job(family, mode, changed))
        except InvalidRequest as refused:
            return f"refused: {refused.problems[0].field} {refused.problems[0].message}"
        is_same = before.shape == after.shape and bool((before == after).all())
        return "SAME" if is_same else "changed"

    def _variations(
        self, family: str, mode: Mode, fields: dict[str, Any], *, schedulers: bool
    ) -> Iterator[tuple[str, object, dict[str, Any]]]:
        model, kind = self.catalogue.model(model_of(self.catalogue, family)), REQUESTS[task_of(mode)]
        for name, values in _OTHER.items():
            # A mask, or an image, makes another mode of a ControlNet's; that is not another value of one field.
            if name not in kind.model_fields or (name in ("image", "mask_image") and name not in fields):
                continue
            if name == "fit" and fields.get("image") != "inputs/wide.png":
                continue  # nothing has to be fitted
            yield from ((name, value, fields | {name: value}) for value in values if fields.get(name) != value)
        yield "loras", "on", fields | {"loras": [{"name": f"{model.family}-lora"}]}
        yield from self._image_prompts(model.family, fields)
        yield "refiner", "on", fields | {"refiner": {"model": REFINER, "switch_at": 0.75}}
        if "cascade" not in fields:
            yield "cascade", "on", fields | {"cascade": {"model": CASCADE, "steps": 2}}
        for name, value in _CASCADE_OTHER.items() if "cascade" in fields else ():
            yield f"cascade.{name}", value, fields | {"cascade": fields["cascade"] | {name: value}}
        yield "hires", "on", fields | {"hires": {"scale": 1.5}}
        for name, value in _CONTROL_OTHER.items() if "controls" in fields else ():
            yield f"controls.{name}", value, fields | {"controls": [fields["controls"][0] | {name: value}]}
        if schedulers:
            # One that the model has no use for, too: some have a single scheduler.
            others = [*model.schedulers, next(id for id in SCHEDULERS if id not in model.schedulers)]
            for scheduler in others:
                if scheduler != model.default("scheduler"):
                    yield "scheduler", scheduler, fields | {"scheduler": scheduler}

    def _image_prompts(self, family: str, fields: dict[str, Any]) -> Iterator[tuple[str, object, dict[str, Any]]]:
        """Where the catalogue has IP-Adapters; of a family without one any name is refused."""
        if self.catalogue.ip_adapters:
            own = (row.id for row in self.catalogue.ip_adapters if row.family == family)
            adapter = {"name": next(own, f"{family}-plain"), "images": ["inputs/other.png"]}
            yield "ip_adapters", "on", fields | {"ip_adapters": [adapter]}

    def _base(self, family: str, mode: Mode, base: str) -> dict[str, Any]:
        allowed = ALL_FAMILIES[family].modes[mode]
        fields: dict[str, Any] = {
            **ALL_FAMILIES[family].any_subject("a red circle on a blue background"),
            "num_inference_steps": self.steps,
            "seed": 7,
        }
        inputs = {
            "image": "inputs/image.png",
            "mask_image": "inputs/mask.png",
            "control_image": "inputs/control.png",
        }
        fields |= {name: key for name, key in inputs.items() if name in allowed}
        if ALL_FAMILIES[family].defaults.get("strength") == 0.3:
            fields["strength"] = 0.6  # with a refiner's own, a single one of four steps would be left
        fields |= {"references": ["inputs/control.png"]} if "references" in allowed else {}
        if "controls" in allowed:
            hint = {"controlnet": f"{family}-hint", "image": "inputs/control.png"}
            fields["controls"] = [{"controlnet": f"{family}-mask"} if _reads_mask(family, mode) else hint]
        changes = {name: value for name, value in BASES[base].items() if name in allowed or name not in _BY_MODE}
        return fields | changes

    def _job(self, family: str, mode: Mode, fields: dict[str, Any]) -> JobParameters:
        model = self.catalogue.model(model_of(self.catalogue, family))
        request = REQUESTS[task_of(mode)].model_validate({**fields, "model": model.id})
        check(request, self.catalogue)
        single = ("image", "mask_image", "control_image")
        named: dict[str, str] = {name: fields[name] for name in single if name in fields}
        named |= {f"references.{index}": key for index, key in enumerate(fields.get("references", ()))}
        named |= {
            f"ip_adapters.{index}.images.0": one["images"][0]
            for index, one in enumerate(fields.get("ip_adapters", ()))
        }
        named |= {
            f"controls.{index}.image": control["image"]
            for index, control in enumerate(fields.get("controls", ()))
            if "image" in control
        }
        images = {path: StoredImage(key, *self._images[key].size) for path, key in named.items()}
        return resolve(request, model, images)


_BY_MODE = frozenset({"image", "mask_image", "strength", "cascade"})


def _reads_mask(family: str, mode: Mode) -> bool:
    return ALL_FAMILIES[family].inpaint_control_only and mode is Mode.CONTROLNET_INPAINT


def _draw_inputs() -> dict[str, Image.Image]:
    """Storage key -> image: for each kind of input two, and wide ones."""

    def shape(size: tuple[int, int], background: str, color: str, box: tuple[int, int, int, int]) -> Image.Image:
        image = Image.new("RGB", size, background)
        ImageDraw.Draw(image).ellipse(box, fill=color)
        return image

    def mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
        image = Image.new("L", size, 0)
        ImageDraw.Draw(image).rectangle(box, fill=255)
        return image

    square, wide = (64, 64), (128, 64)
    return {
        "inputs/image.png": shape(square, "blue", "red", (16, 16, 48, 48)),
        "inputs/other.png": shape(square, "white", "green", (8, 24, 40, 56)),
        "inputs/control.png": shape(square, "black", "white", (16, 16, 48, 48)),
        "inputs/other_control.png": shape(square, "black", "white", (4, 4, 28, 28)),
        "inputs/mask.png": mask(square, (20, 20, 43, 43)),
        "inputs/other_mask.png": mask(square, (4, 4, 40, 30)),
        "inputs/wide.png": shape(wide, "blue", "red", (16, 16, 48, 48)),
        "inputs/wide_mask.png": mask(wide, (52, 20, 75, 43)),
    }
