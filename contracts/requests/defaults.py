"""Fills in what a request leaves open: defaults, size, seed, storage keys. Returns what a worker runs.

A field of `fields.py` is carried over by name. Decodes and stores nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from contracts.catalogue.families import MODE_FIELDS, Mode, mode_of
from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.rows.preprocessors import PREPROCESSORS
from contracts.requests.entries import CASCADE_INPAINT_NOISE, CASCADE_NOISE, CASCADE_SCALE, Cascade
from contracts.requests.entry_parameters import (
    CascadeParameters,
    ControlParameters,
    HiresParameters,
    IpAdapterParameters,
    LoraParameters,
    ReferenceParameters,
    TextualInversionParameters,
)
from contracts.requests.fields import MAX_DRAWN_SEED, ImageFields, OptionalImages
from contracts.requests.guidance import with_defaults
from contracts.requests.images.fit import Fit, Size
from contracts.requests.images.image_fields import DEFAULT_FIT, DEFAULT_MASK_BLUR, DEFAULT_STRENGTH
from contracts.requests.images.output_size import SizeRules, output_size, reference_size
from contracts.requests.images.preprocessing import output_resolution, resolve_options
from contracts.requests.images.stored_image import StoredImages, check_aspects, check_mask, use_of
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
    check_mask(images, (width, height), fit_of(request))
    fields = _acting_fields(request, model, (width, height))
    prompts = read_prompts(request)
    own_sizes = _reference_sizes(model, images, (width, height))
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
                use_of(
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
    if request.cascade is not None and "cascade" in fields:
        fields["cascade"] = _cascade_of(request.cascade, request_mode(request), size)
    return fields


def _cascade_of(cascade: Cascade, mode: Mode, size: Size) -> CascadeParameters:
    """A request's cascade with the size of its images, and the noise that its mode has."""
    width, height = (side * CASCADE_SCALE for side in size)
    noise_level = CASCADE_INPAINT_NOISE if mode is Mode.INPAINT else CASCADE_NOISE
    given = {"noise_level": noise_level, **cascade.model_dump(exclude_none=True)}
    return CascadeParameters(**given, width=width, height=height)


def _reference_sizes(model: ModelSpec, images: StoredImages, output: Size) -> dict[str, Size]:
    """The size that each reference image is read in.

    Most references do not appear in the output, so they keep their own size where the model can read that.

    Raises:
        InvalidRequest: the aspect of one is beyond what the model reads.
    """
    known, rules = model.family_spec.references, SizeRules.of(model)
    sizes = {
        path: output if known.fits_output else reference_size(rules, known, image.size)
        for path, image in images.items()
        if known and path.startswith(_REFERENCE)
    }
    check_aspects(known, sizes)
    return sizes


def fit_of(request: JobRequest) -> Fit:
    """Return how the request's input images fill the output."""
    return vars(request).get("fit") or DEFAULT_FIT


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
    for index, control in enumerate(vars(request).get("controls", ())):
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
    for index, control in enumerate(vars(request).get("controls", ())):
        image = images.get(f"controls.{index}.image")
        fields = control.model_dump() | {"image": None if image is None else image.key}
        if index in made and image is not None:
            _, options = made[index]
            key = images[f"controls.{index}{CONTROL_MAP}"].key
            fields |= {"image": key, "source": image.key, "preprocess_options": options}
        controls.append(ControlParameters(**fields))
    return tuple(controls)


def _is_batchable(request: JobRequest) -> bool | None:
    """Whether calls may be joined: as the request says, else with a drawn seed; None: the operator decides."""
    return True if request.batchable is None and request.seed is None else request.batchable


def value_of(request: JobRequest, model: ModelSpec, field: str) -> object:
    """Return a field's value: the client's, else the model's or its family's default, else the task's; or None."""
    given = vars(request).get(field)  # requests of other tasks may not have it
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
        has_image=vars(request).get("image") is not None,
        has_mask=vars(request).get("mask_image") is not None,
    )
