"""Fills in what a request leaves open: defaults, size, seed, storage keys. Returns what a worker runs.

A field of `fields.py` is carried over by name. Decodes and stores nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.catalogue.catalogue import ModelSpec
from contracts.catalogue.families import MODE_FIELDS, Mode, mode_of
from contracts.errors import FieldProblem, InvalidRequest
from contracts.requests.fields import (
    DEFAULT_MASK_BLUR,
    DEFAULT_STRENGTH,
    MAX_DRAWN_SEED,
    MAX_SIDE,
    MIN_SIDE,
    ImageFields,
    OptionalImages,
)
from contracts.requests.parameters import ControlParameters, JobParameters, LoraParameters
from contracts.requests.schema import JobRequest

#: Defaults of fields that neither the request nor model and family set.
_TASK_DEFAULTS: Mapping[str, object] = {"strength": DEFAULT_STRENGTH, "mask_blur": DEFAULT_MASK_BLUR}
_CARRIED_FIELDS = ImageFields.model_fields.keys() | OptionalImages.model_fields.keys()


@dataclass(frozen=True)
class StoredImage:
    """A decoded, normalized image: its storage key and its size in pixels."""

    key: str
    width: int
    height: int


#: Field path (`image`, `mask_image`, `controls.0.image`) -> image.
StoredImages = Mapping[str, StoredImage]


def resolve(request: JobRequest, model: ModelSpec, images: StoredImages) -> JobParameters:
    """Resolve a request into the parameters of its job.

    Args:
        request: one that passed `validation.check`.
        model: the row that `check` returned.
        images: one for each image field that the request sets.

    Raises:
        InvalidRequest: the sizes of the images do not fit each other or the model.
    """
    width, height = _output_size(request, model, images.get("image"))
    _check_mask_size(images)
    mode = request_mode(request)
    unused = (MODE_FIELDS - model.family_spec.modes[mode]) | set(model.refuses)
    fields: dict[str, Any] = {name: value_of(request, model, name) for name in _CARRIED_FIELDS - unused}
    fields = {name: value for name, value in fields.items() if value is not None}
    keys = {path: image.key for path, image in images.items()}
    controls = getattr(request, "controls", ())
    return JobParameters(
        **{
            **fields,
            "task": request.task,  # type: ignore[attr-defined]
            "mode": mode,
            "model": model.id,
            "width": width,
            "height": height,
            "seed": secrets.randbelow(MAX_DRAWN_SEED + 1) if request.seed is None else request.seed,
            "batchable": _is_batchable(request),
            "loras": tuple(LoraParameters(**lora.model_dump()) for lora in request.loras),
            "image": keys.get("image"),
            "mask_image": keys.get("mask_image"),
            "controls": tuple(
                ControlParameters(**control.model_dump() | {"image": keys.get(f"controls.{index}.image")})
                for index, control in enumerate(controls)
            ),
        }
    )


def _is_batchable(request: JobRequest) -> bool | None:
    """Whether calls may be joined: as the request says, else with a drawn seed; None: the operator decides."""
    return True if request.batchable is None and request.seed is None else request.batchable


def value_of(request: JobRequest, model: ModelSpec, field: str) -> object:
    """Return a field's value: the client's, else the model's or its family's default, else the task's; or None."""
    value = getattr(request, field, None)
    if value is None:
        value = model.default(field)
    return _TASK_DEFAULTS.get(field) if value is None else value


def request_mode(request: JobRequest) -> Mode:
    """Return the mode that a request runs in."""
    return mode_of(
        request.task,  # type: ignore[attr-defined]
        has_image=getattr(request, "image", None) is not None,
        has_mask=getattr(request, "mask_image", None) is not None,
    )


def _output_size(request: JobRequest, model: ModelSpec, image: StoredImage | None) -> tuple[int, int]:
    """Return width and height: the client's, else the image's rounded down to a valid size, else the model's."""
    if image is None:
        return int(str(value_of(request, model, "width"))), int(str(value_of(request, model, "height")))
    multiple = model.family_spec.size_multiple
    width = request.width or image.width - image.width % multiple
    height = request.height or image.height - image.height % multiple
    sides_fit = all(MIN_SIDE <= side <= MAX_SIDE for side in (width, height))
    if not sides_fit or width * height > model.pixel_cap:
        message = (
            f"is {image.width} × {image.height}, a size that {model.id} cannot generate; "
            "set width and height, and the image is scaled to them"
        )
        allowed = f"sides {MIN_SIDE}–{MAX_SIDE}, width × height ≤ {model.pixel_cap}"
        raise InvalidRequest([FieldProblem("image", message, allowed)])
    return width, height


def _check_mask_size(images: StoredImages) -> None:
    image, mask = images.get("image"), images.get("mask_image")
    if image and mask and (image.width, image.height) != (mask.width, mask.height):
        expected = f"{image.width} × {image.height}"
        message = f"must be as large as image ({expected}), got {mask.width} × {mask.height}"
        raise InvalidRequest([FieldProblem("mask_image", message, expected)])
