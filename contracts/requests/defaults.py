"""Fills in what a request leaves open: defaults, size, seed, storage keys. Returns what a worker runs.

A field of `fields.py` is carried over by name. Decodes and stores nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.catalogue.families import MODE_FIELDS, Mode, References, mode_of
from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.rows.preprocessors import PREPROCESSORS
from contracts.errors import FieldProblem, InvalidRequest
from contracts.requests.entry_parameters import (
    ControlParameters,
    HiresParameters,
    IpAdapterParameters,
    LoraParameters,
    ReferenceParameters,
    TextualInversionParameters,
)
from contracts.requests.fields import MAX_DRAWN_SEED, ImageFields, OptionalImages
from contracts.requests.guidance import with_defaults
from contracts.requests.images.fit import Area, Fit, Size, place
from contracts.requests.images.image_fields import DEFAULT_FIT, DEFAULT_MASK_BLUR, DEFAULT_STRENGTH
from contracts.requests.images.input_use import InputUse
from contracts.requests.images.output_size import SizeRules, output_size, reference_size
from contracts.requests.images.preprocessing import output_resolution, resolve_options
from contracts.requests.parameters import JobParameters
from contracts.requests.prompts.reading import read_prompts
from contracts.requests.schema import JobRequest

#: Defaults of fields that neither the request nor model and family set.
_TASK_DEFAULTS: Mapping[str, object] = {
    "strength": DEFAULT_STRENGTH,
    "mask_blur": DEFAULT_MASK_BLUR,
    "fit": DEFAULT_FIT,
}
#: Images whose aspect the output follows: the first of them that a request has.
_LEADS = ("image", "control_image", "controls.0.image", "references.0")
#: Beginning of the path of a reference image.
_REFERENCE = "references."
#: How the path ends of a control image that a preprocessor made: `controls.0.map`.
CONTROL_MAP = ".map"
#: `check_step` is stored once its latents are (`app.submission.step_checks`).
_CARRIED_FIELDS = (ImageFields.model_fields.keys() | OptionalImages.model_fields.keys()) - {"check_step"}


@dataclass(frozen=True)
class StoredImage:
    """A decoded, normalized image: its storage key and its size in pixels.

    Attributes:
        color_profile: what was done about its color profile; None: nothing had to be.
        mask_source: of a mask: what was read as the mask, where that is not its brightness.
        white: of a mask: the box around its white, in pixels; None where it is not known.
    """

    key: str
    width: int
    height: int
    color_profile: str | None = None
    mask_source: str | None = None
    white: Area | None = None

    @property
    def size(self) -> Size:
        """Width and height."""
        return self.width, self.height


#: How the mask of an IP-Adapter's images is brought to the output's size, as diffusers does.
IMAGE_PROMPT_MASK_FIT: Fit = "stretch"

#: Field path (`image`, `mask_image`, `controls.0.image`, `references.0`, `ip_adapters.0.images.0`) -> image.
StoredImages = Mapping[str, StoredImage]


def resolve(request: JobRequest, model: ModelSpec, images: StoredImages) -> JobParameters:
    """Resolve a request into the parameters of its job.

    Args:
        request: one that passed `validation.check`.
        model: the row that `check` returned.
        images: one for each image field that the request sets, and for each control with a preprocessor what it
            made, at the path `controls.N.map`.

    Raises:
        InvalidRequest: the mask is of another size than the image, or changes nothing of the output.
    """
    width, height = job_size(request, model, images)
    _check_mask(images, (width, height), fit_of(request))
    fields = _acting_fields(request, model, (width, height))
    prompts = read_prompts(request)
    own_sizes = _reference_sizes(model, images)
    known = model.family_spec.references
    is_scaled = known is not None and known.scaled_pixels is not None
    scaled = frozenset(own_sizes) if is_scaled else frozenset()
    return JobParameters(
        **{
            **fields,
            **{name: text for name, text in prompts.texts.items() if name in fields},
            **_stored(request, images, own_sizes, is_scaled=is_scaled),
            "controls": _controls(request, images, map_options(request, model, images)),
            "prompt_chunks": {name: chunks for name, chunks in prompts.chunks.items() if name in fields},
            "task": request.task,  # type: ignore[attr-defined]
            "mode": request_mode(request),
            "model": model.id,
            "preview_vae": model.preview_vae if request.previews else None,
            "width": width,
            "height": height,
            "seed": secrets.randbelow(MAX_DRAWN_SEED + 1) if request.seed is None else request.seed,
            "batchable": _is_batchable(request),
            "loras": tuple(LoraParameters(**lora.model_dump()) for _, lora in prompts.loras),
            # `contracts.requests.prompts.inversions` completes them from the catalogue.
            "textual_inversions": tuple(
                TextualInversionParameters(name=one.name, words=()) for one in request.textual_inversions
            ),
            "input_images": tuple(
                _use(
                    field,
                    image,
                    own_sizes.get(field, (width, height)),
                    (width, height),
                    "stretch" if field in scaled else fit_of(request),
                )
                for field, image in images.items()
                if not field.endswith(CONTROL_MAP)
            ),
        }
    )


def _acting_fields(request: JobRequest, model: ModelSpec, size: Size) -> dict[str, Any]:
    """The values of the fields that act in the request's mode of its model; without those that are absent."""
    unused = (MODE_FIELDS - model.family_spec.modes[request_mode(request)]) | model.refused
    fields: dict[str, Any] = {name: value_of(request, model, name) for name in _CARRIED_FIELDS - unused}
    fields = {name: value for name, value in fields.items() if value is not None}
    if request.guidance is not None and "guidance" in fields:
        fields["guidance"] = with_defaults(request.guidance, model)
    if request.hires is not None and "hires" in fields:
        width, height = SizeRules.of(model).enlarged(size, request.hires.scale)
        fields["hires"] = HiresParameters(**request.hires.model_dump(), width=width, height=height)
    return fields


def _reference_sizes(model: ModelSpec, images: StoredImages) -> dict[str, Size]:
    """The size that each reference image is read in.

    A reference does not appear in the output, so it keeps its own size where the model can read that.

    Raises:
        InvalidRequest: the aspect of one is beyond what the model reads.
    """
    known, rules = model.family_spec.references, SizeRules.of(model)
    sizes = {
        path: reference_size(rules, known, image.size)
        for path, image in images.items()
        if known and path.startswith(_REFERENCE)
    }
    _check_aspects(known, sizes)
    return sizes


def fit_of(request: JobRequest) -> Fit:
    """Return how the request's input images fill the output."""
    return getattr(request, "fit", None) or DEFAULT_FIT


def job_size(request: JobRequest, model: ModelSpec, images: StoredImages) -> Size:
    """Return the width and height of the job's images."""
    lead = next((images[path] for path in _LEADS if path in images), None)
    return output_size(
        SizeRules.of(model),
        request.width,
        request.height,
        None if lead is None else lead.size,
        is_start="image" in images or "references.0" in images,
        fit=fit_of(request),
    )


def map_options(
    request: JobRequest, model: ModelSpec, images: StoredImages
) -> dict[int, tuple[str, dict[str, float]]]:
    """Return what makes each control image before the job is queued: its index -> preprocessor and options.

    Those that are models make theirs in the job; see `contracts.requests.checks.control_maps`.

    Args:
        request: one that passed `validation.check`.
        images: as for `resolve`; control images may be missing.
    """
    output, fit, found = job_size(request, model, images), fit_of(request), {}
    for index, control in enumerate(getattr(request, "controls", ())):
        if control.preprocess in PREPROCESSORS:
            resolution = output_resolution(images[f"controls.{index}.image"].size, output, fit)
            options = resolve_options(
                PREPROCESSORS[control.preprocess], control.preprocess_options or {}, resolution
            )
            found[index] = control.preprocess, options
    return found


def _stored(
    request: JobRequest, images: StoredImages, own_sizes: Mapping[str, Size], *, is_scaled: bool
) -> dict[str, Any]:
    """The fields that hold images, with storage keys in place of what the client sent."""
    keys = {path: image.key for path, image in images.items()}
    return {
        **{name: keys.get(name) for name in ("image", "mask_image", "control_image")},
        "ip_adapters": tuple(
            IpAdapterParameters(
                **adapter.model_dump()
                | {
                    "images": tuple(
                        keys[f"ip_adapters.{number}.images.{index}"] for index in range(len(adapter.images))
                    ),
                    "mask": keys.get(f"ip_adapters.{number}.mask"),
                }
            )
            for number, adapter in enumerate(request.ip_adapters)
        ),
        "references": tuple(
            ReferenceParameters(image=keys[path], width=size[0], height=size[1], scaled_by_pipeline=is_scaled)
            for path, size in own_sizes.items()
        ),
    }


def _controls(
    request: JobRequest, images: StoredImages, made: Mapping[int, tuple[str, dict[str, float]]]
) -> tuple[ControlParameters, ...]:
    """The controls, with storage keys of their images; what is made of an image is in its place."""
    controls = []
    for index, control in enumerate(getattr(request, "controls", ())):
        image = images.get(f"controls.{index}.image")
        fields = control.model_dump() | {"image": None if image is None else image.key}
        if index in made and image is not None:
            _, options = made[index]
            key = images[f"controls.{index}{CONTROL_MAP}"].key
            fields |= {"image": key, "source": image.key, "preprocess_options": options}
        controls.append(ControlParameters(**fields))
    return tuple(controls)


def _check_aspects(known: References | None, sizes: Mapping[str, Size]) -> None:
    """Refuse references that are too narrow for the model."""
    most = None if known is None else known.max_aspect
    problems = [
        FieldProblem(
            path, f"is too narrow: its sides may be as 1 to {most}, got {width} × {height}; crop it", most
        )
        for path, (width, height) in sizes.items()
        if most is not None and max(width, height) > most * min(width, height)
    ]
    if problems:
        raise InvalidRequest(problems)


def _is_batchable(request: JobRequest) -> bool | None:
    """Whether calls may be joined: as the request says, else with a drawn seed; None: the operator decides."""
    return True if request.batchable is None and request.seed is None else request.batchable


def value_of(request: JobRequest, model: ModelSpec, field: str) -> object:
    """Return a field's value: the client's, else the model's or its family's default, else the task's; or None."""
    given = getattr(request, field, None)
    if given is not None and field in request.model_fields_set:
        return given
    default = model.default(field)
    if default is None:
        default = _TASK_DEFAULTS.get(field)
    return given if default is None else default


def request_mode(request: JobRequest) -> Mode:
    """Return the mode that a request runs in."""
    return mode_of(
        request.task,  # type: ignore[attr-defined]
        has_image=getattr(request, "image", None) is not None,
        has_mask=getattr(request, "mask_image", None) is not None,
    )


def _use(field: str, image: StoredImage, read_size: Size, output: Size, fit: Fit) -> InputUse:
    """Describe what is done to an input image, for the receipt; `read_size` is what it is brought to."""
    if field.startswith("ip_adapters.") and ".images." in field:
        # An image encoder looks at the middle of it, whatever the output's size.
        profile = image.color_profile
        return InputUse(field=field, width=image.width, height=image.height, color_profile=profile)
    if field.startswith("ip_adapters."):
        fit = IMAGE_PROMPT_MASK_FIT
    placement, differs = place(image.size, read_size, fit), image.size != read_size
    is_whole = placement.crop == (0, 0, *image.size)
    left, upper, right, lower = placement.crop
    return InputUse(
        field=field,
        width=image.width,
        height=image.height,
        fit=fit if differs else None,
        read_size=None if read_size == output else read_size,
        crop=None if is_whole else (round(left, 2), round(upper, 2), round(right, 2), round(lower, 2)),
        area=None if placement.area == (0, 0, *read_size) else placement.area,
        color_profile=image.color_profile,
        mask_source=image.mask_source,
    )


def _check_mask(images: StoredImages, output: Size, fit: Fit) -> None:
    """Refuse a mask that does not belong to the image, or whose white is cut off with the image's edges."""
    image, mask = images.get("image"), images.get("mask_image")
    if image is None or mask is None:
        return
    if image.size != mask.size:
        expected = f"{image.width} × {image.height}"
        message = f"must be as large as image ({expected}), got {mask.width} × {mask.height}"
        raise InvalidRequest([FieldProblem("mask_image", message, expected)])
    left, upper, right, lower = place(mask.size, output, fit).crop
    white = mask.white
    if white and (white[2] <= left or white[0] >= right or white[3] <= upper or white[1] >= lower):
        message = (
            f"changes no pixel: what it regenerates is within {white}, and of the image only "
            f"({left:g}, {upper:g}, {right:g}, {lower:g}) is used with fit {fit} at {output[0]} × {output[1]}; "
            "use fit contain or pad, or a size with the image's aspect"
        )
        raise InvalidRequest([FieldProblem("mask_image", message)])
