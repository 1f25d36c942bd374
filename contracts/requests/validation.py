"""Every rule about a request that data can decide, checked before anything is queued or stored.

`check` needs the request and the catalogue alone; `resolve` also the sizes of the decoded pictures, and
returns the parameters that a worker runs. Both report all problems at once. Neither decodes or stores.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.catalogue.families import MODE_FIELDS, Mode, mode_of
from contracts.errors import FieldProblem, InvalidRequest, NotFound
from contracts.requests.parameters import ControlParameters, JobParameters, LoraParameters
from contracts.requests.schema import MAX_SEED, ControlNetRequest, JobRequest
from contracts.requests.step_rules import Steps

_MIN_SIDE, _MAX_SIDE = 64, 2048


@dataclass(frozen=True)
class StoredImage:
    """A decoded, normalised picture: its storage key and its size in pixels."""

    key: str
    width: int
    height: int


#: Field path (`image`, `mask_image`, `controls.0.image`) -> picture.
Pictures = Mapping[str, StoredImage]


def check(request: JobRequest, catalogue: Catalogue) -> ModelSpec:
    """Hold a request against the catalogue.

    Returns:
        The row of the model that will run it.

    Raises:
        InvalidRequest: with every problem found.
    """
    name = catalogue.default_model if request.model is None else request.model
    try:
        model = catalogue.model(name)
    except NotFound:
        ids = [row.id for row in catalogue.models]
        raise InvalidRequest([FieldProblem("model", f"there is no model {name!r}", ids)]) from None
    problems = [
        *_field_problems(request, model),
        *_size_problems(request, model),
        *_guidance_problems(request, model),
        *_step_problems(request, model),
        *_lora_problems(request, model, catalogue),
        *_control_problems(request, model, catalogue),
    ]
    if problems:
        raise InvalidRequest(problems)
    return model


def resolve(request: JobRequest, model: ModelSpec, pictures: Pictures) -> JobParameters:
    """Fill in every default, draw the seed, and put storage keys in the pictures' places.

    Args:
        request: one that passed `check`.
        model: the row that `check` returned.
        pictures: one for each picture field that the request sets.

    Raises:
        InvalidRequest: the pictures' sizes do not fit each other or the model.
    """
    width, height = _output_size(request, model, pictures.get("image"))
    problems = list(_picture_problems(pictures))
    if problems:
        raise InvalidRequest(problems)
    mode = _mode(request)
    granted = model.family_spec.modes[mode]
    filled = {
        field: value
        for field in granted & MODE_FIELDS - {"image", "mask_image", "controls"}
        if (value := _value(request, model, field)) is not None
    }
    return JobParameters(
        task=request.task,  # type: ignore[attr-defined]
        mode=mode,
        model=model.id,
        prompt=request.prompt,
        width=width,
        height=height,
        num_images=request.num_images,
        num_inference_steps=_value(request, model, "num_inference_steps"),
        guidance_scale=None if "guidance_scale" in model.refuses else _value(request, model, "guidance_scale"),
        seed=secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed,
        batchable=request.seed is None if request.batchable is None else request.batchable,
        scheduler=request.scheduler or str(model.default("scheduler")),
        speed=request.speed,
        loras=tuple(LoraParameters(**lora.model_dump()) for lora in request.loras),
        image=_key(pictures, "image"),
        mask_image=_key(pictures, "mask_image"),
        controls=_controls(request, pictures),
        output_format=request.output_format,
        output_quality=request.output_quality,
        previews=request.previews,
        **filled,
    )


#: What stands for a field that client, model and family leave open.
_TASK_DEFAULTS: Mapping[str, object] = {"strength": 0.6, "mask_blur": 0}


def _value(request: JobRequest, model: ModelSpec, field: str) -> object:
    given = getattr(request, field, None)
    if given is not None:
        return given
    default = model.default(field)
    return _TASK_DEFAULTS.get(field) if default is None else default


def _mode(request: JobRequest) -> Mode:
    return mode_of(
        request.task,  # type: ignore[attr-defined]
        has_image=getattr(request, "image", None) is not None,
        has_mask=getattr(request, "mask_image", None) is not None,
    )


def _key(pictures: Pictures, field: str) -> str | None:
    return pictures[field].key if field in pictures else None


def _controls(request: JobRequest, pictures: Pictures) -> tuple[ControlParameters, ...]:
    return tuple(
        ControlParameters(image=_key(pictures, f"controls.{index}.image"), **control.model_dump(exclude={"image"}))
        for index, control in enumerate(getattr(request, "controls", ()))
    )


def _field_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    family, mode = model.family_spec, _mode(request)
    if mode is Mode.CONTROLNET_INPAINT and getattr(request, "image", None) is None:
        yield FieldProblem("image", "mask_image needs the image that it masks; send image too")
        return
    if mode not in family.modes:
        modes = [str(known) for known in family.modes]
        field = "image" if mode is Mode.CONTROLNET_IMG2IMG else "model"
        yield FieldProblem(field, f"{model.id} ({family.id}) has no pipeline for {mode}", modes)
        return
    granted = family.modes[mode]
    for field in sorted(MODE_FIELDS & request.model_fields_set):
        if field not in granted and getattr(request, field) is not None:
            usable = sorted(granted)
            yield FieldProblem(field, f"{model.id} ({family.id}) cannot use it in {mode}; leave it out", usable)
    for field in sorted(set(model.refuses) & request.model_fields_set):
        yield FieldProblem(field, f"{model.id} would ignore it; leave it out")
    skipped = request.clip_skip
    if skipped is not None and skipped > model.max_clip_skip and "clip_skip" in granted:
        message = f"the text encoders of {model.id} have too few layers"
        yield FieldProblem("clip_skip", message, f"1–{model.max_clip_skip}")
    length, longest = request.max_sequence_length, family.max_sequence_length
    if length is not None and longest is not None and length > longest:
        yield FieldProblem(
            "max_sequence_length", f"{family.id} reads {longest} tokens at the most", f"1–{longest}"
        )


def _size_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    multiple = model.family_spec.size_multiple
    for field in ("width", "height"):
        side = getattr(request, field)
        if side is not None and side % multiple:
            near = [side - side % multiple, side - side % multiple + multiple]
            yield FieldProblem(field, f"{side} is no multiple of {multiple}; take one of the next", near)
    width, height = _value(request, model, "width"), _value(request, model, "height")
    if isinstance(width, int) and isinstance(height, int) and width * height > model.pixel_cap:
        field = "width" if request.width is not None and width >= height else "height"
        message = f"{width} × {height} is more than the {model.pixel_cap} pixels that {model.id} makes"
        yield FieldProblem(field, message, f"width × height ≤ {model.pixel_cap}")


def _guidance_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    if not model.family_spec.negative_needs_true_cfg or request.negative_prompt is None:
        return
    if "negative_prompt" not in model.family_spec.modes.get(_mode(request), ()):
        return
    scale = _value(request, model, "true_cfg_scale")
    if isinstance(scale, int | float) and scale <= 1:
        message = "acts only together with true_cfg_scale above 1; set that, or leave negative_prompt out"
        yield FieldProblem("negative_prompt", message, "true_cfg_scale > 1")


def _step_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    has_strength = "strength" in model.family_spec.modes.get(_mode(request), ())
    steps = Steps(
        count=int(str(_value(request, model, "num_inference_steps"))),
        strength=float(str(_value(request, model, "strength"))) if has_strength else 1.0,
        scheduler=request.scheduler or str(model.default("scheduler")),
        speed=request.speed,
    )
    yield from steps.problems(model)


def _lora_problems(request: JobRequest, model: ModelSpec, catalogue: Catalogue) -> Iterator[FieldProblem]:
    names = [row.id for row in catalogue.loras if row.suits(model)]
    seen: set[str] = set()
    for index, lora in enumerate(request.loras):
        field = f"loras.{index}.name"
        try:
            row = catalogue.lora(lora.name)
        except NotFound:
            yield FieldProblem(field, f"there is no LoRA {lora.name!r}", names)
            continue
        if row.family != model.family:
            yield FieldProblem(
                field, f"{row.id} was made for {row.family}, and {model.id} is {model.family}", names
            )
        elif not row.suits(model):
            fitting = ", ".join(row.models)
            yield FieldProblem(field, f"{row.id} does not fit {model.id}; it was made for {fitting}", names)
        if row.id in seen:
            yield FieldProblem(field, f"{row.id} stands twice; name it once, with the sum of the scales")
        seen.add(row.id)


def _control_problems(request: JobRequest, model: ModelSpec, catalogue: Catalogue) -> Iterator[FieldProblem]:
    if not isinstance(request, ControlNetRequest):
        return
    names = [row.id for row in catalogue.controlnets if row.family == model.family]
    wants_inpaint = model.family_spec.inpaint_control_only and request.mask_image is not None
    for index, control in enumerate(request.controls):
        path = f"controls.{index}"
        try:
            row = catalogue.controlnet(control.controlnet)
        except NotFound:
            yield FieldProblem(f"{path}.controlnet", f"there is no ControlNet {control.controlnet!r}", names)
            continue
        if row.family != model.family:
            message = f"{row.id} was made for {row.family}, and {model.id} is {model.family}"
            yield FieldProblem(f"{path}.controlnet", message, names)
        if wants_inpaint != (row.kind == "inpaint"):
            use = "with image and mask_image" if row.kind == "inpaint" else "without mask_image"
            yield FieldProblem(f"{path}.controlnet", f"{row.id} works on {model.family} only {use}")
        elif row.kind == "inpaint" and control.image is not None:
            yield FieldProblem(f"{path}.image", f"{row.id} takes the job's own image and mask_image; leave it out")
        elif row.kind == "hint" and control.image is None:
            yield FieldProblem(f"{path}.image", f"{row.id} needs a control image")
        if control.preprocess is not None and control.preprocess not in row.preprocessors:
            message = f"{row.id} has no preprocessor {control.preprocess!r}"
            yield FieldProblem(f"{path}.preprocess", message, list(row.preprocessors))
        if control.guidance_start >= control.guidance_end:
            message = f"must be below guidance_end, which is {control.guidance_end}"
            yield FieldProblem(f"{path}.guidance_start", message, f"0 ≤ start < {control.guidance_end}")
    if wants_inpaint and len(request.controls) > 1:
        yield FieldProblem("controls", f"{model.family} repaints with one ControlNet at a time", "1 entry")


def _output_size(request: JobRequest, model: ModelSpec, image: StoredImage | None) -> tuple[int, int]:
    """The client's size, else the image's on the family's grid, else the model's."""
    multiple = model.family_spec.size_multiple
    width, height = request.width, request.height
    if image is None:
        return (
            width or int(str(model.default("width"))),
            height or int(str(model.default("height"))),
        )
    width = width or image.width - image.width % multiple
    height = height or image.height - image.height % multiple
    sides_fit = all(_MIN_SIDE <= side <= _MAX_SIDE for side in (width, height))
    if not sides_fit or width * height > model.pixel_cap:
        message = (
            f"{image.width} × {image.height} is no size that {model.id} makes; "
            "name width and height, and the image is scaled to them"
        )
        allowed = f"{_MIN_SIDE}–{_MAX_SIDE} a side, width × height ≤ {model.pixel_cap}"
        raise InvalidRequest([FieldProblem("image", message, allowed)])
    return width, height


def _picture_problems(pictures: Pictures) -> Iterator[FieldProblem]:
    image, mask = pictures.get("image"), pictures.get("mask_image")
    if image and mask and (image.width, image.height) != (mask.width, mask.height):
        message = f"is {mask.width} × {mask.height}, and the image is {image.width} × {image.height}"
        yield FieldProblem("mask_image", message, f"{image.width} × {image.height}")
