"""Checks a request against the catalogue before anything is decoded, stored or queued; reports all problems.

A message says what is required, what was received and what to do; `allowed` has the values for programs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.class_labels import CLASS_COUNT, label_problem
from contracts.catalogue.families import MODE_FIELDS, Mode, task_of
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem, InvalidRequest, NotFound
from contracts.requests.checks.cascading import cascade_problems
from contracts.requests.checks.controls import control_problems
from contracts.requests.checks.effects import effect_problems
from contracts.requests.checks.hires import hires_problems
from contracts.requests.checks.ip_adapters import ip_adapter_problems
from contracts.requests.checks.refining import refiner_problems
from contracts.requests.checks.second_models import second_models
from contracts.requests.checks.step_rules import StepRules
from contracts.requests.checks.vaes import vae_problems
from contracts.requests.defaults import request_mode, value_of
from contracts.requests.fields import (
    MAX_PROMPT_BYTES,
    MAX_SEED,
    MIN_SIDE,
    PROMPT_FIELDS,
    TRANSPARENT_FORMATS,
)
from contracts.requests.prompts.inversions import inversion_problems
from contracts.requests.prompts.reading import prompt_problems, read_prompts
from contracts.requests.schema import JobRequest, ReferenceEditRequest


def check(request: JobRequest, catalogue: Catalogue) -> ModelSpec:
    """Check everything about a request that does not depend on the content of its images.

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
        raise InvalidRequest([FieldProblem("model", f"unknown model {name[:80]!r}", ids)]) from None
    problems = [
        *_text_problems(request),
        *_reserved_word_problems(request, model),
        *prompt_problems(request, model.family_spec, value_of(request, model, "long_prompt")),
        *_mode_problems(request, model, catalogue),
        *_reference_problems(request, model),
        *_model_limit_problems(request, model),
        *_layer_problems(request, model),
        *_size_problems(request, model),
        *_seed_problems(request),
        *_step_problems(request, model, catalogue),
        *_lora_problems(request, model, catalogue),
        *ip_adapter_problems(request, model, catalogue),
        *vae_problems(request, model, catalogue),
        *inversion_problems(request, model, catalogue),
        *control_problems(request, model, catalogue),
    ]
    if problems:
        raise InvalidRequest(problems)
    return model


def _text_problems(request: JobRequest) -> Iterator[FieldProblem]:
    """Yield a problem if the prompts would take too much of the queue's memory."""
    read = read_prompts(request)
    sizes = {name: _json_bytes(text) for name, text in read.texts.items()}
    sizes |= {name: sizes[name] + _json_bytes(chunks) for name, chunks in read.chunks.items()}
    if sum(sizes.values()) > MAX_PROMPT_BYTES:
        longest = max(sizes, key=lambda name: sizes[name])
        message = (
            f"is too long: all prompts together may have {MAX_PROMPT_BYTES} bytes as JSON in UTF-8, got "
            f"{sum(sizes.values())}; shorten this one, which has {sizes[longest]}"
        )
        yield FieldProblem(longest, message, f"{MAX_PROMPT_BYTES} bytes for {', '.join(PROMPT_FIELDS)} together")


def _reserved_word_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    """Yield prompts with words that a text encoder would take for images."""
    for field, text in read_prompts(request).texts.items():
        for word in model.family_spec.reserved_words:
            if word in text:
                message = f"has {word}, which stands for an image in the prompts of {model.id}; remove it"
                yield FieldProblem(field, message)


def _json_bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _mode_problems(request: JobRequest, model: ModelSpec, catalogue: Catalogue) -> Iterator[FieldProblem]:
    """Yield a problem if the model cannot run the mode, and one for each field that the mode does not use."""
    family, mode = model.family_spec, request_mode(request)
    if mode in (Mode.CONTROLNET_INPAINT, Mode.EDIT_INPAINT) and getattr(request, "image", None) is None:
        yield FieldProblem("image", "is required with mask_image")
        return
    if model.only_tasks and request.task not in model.only_tasks:  # type: ignore[attr-defined]
        message = f"{model.id} runs only {', '.join(model.only_tasks)}: its weights are made for that"
        yield FieldProblem("model", message, list(model.only_tasks))
        return
    if family.runs_later_only:
        able = [row.id for row in catalogue.models if model in second_models("cascade", row, catalogue)]
        named = f"; name it there in jobs of {', '.join(able)}" if able else "; no model here can use it"
        yield FieldProblem("model", f"{model.id} runs only as the cascade of another model{named}", able)
        return
    if mode not in family.modes:
        field = "image" if mode is Mode.CONTROLNET_IMG2IMG else "model"
        message = f"{model.id} ({family.id}) does not support {mode}{_where_instead(mode, catalogue)}"
        yield FieldProblem(field, message, [str(known) for known in family.modes])
        return
    if mode is Mode.EDIT and getattr(request, "image", None) is not None:
        yield FieldProblem("image", "needs mask_image in an edit, which says which part is regenerated; add one")
        return
    yield from _missing_problems(request, model)
    used = family.modes[mode]
    for field in sorted((MODE_FIELDS - used) & request.model_fields_set):
        if getattr(request, field) not in (None, ()):
            message = f"is not supported by {model.id} ({family.id}) in {mode}; remove it"
            yield FieldProblem(field, message, sorted(used))


def _missing_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    """Yield each field that requests to this model must have, and this one has not."""
    family = model.family_spec
    if family.prompted_by_class and request.class_label is None:
        message = f"is required: {model.id} makes images of classes, and GET /v1/models/{model.id} names them"
        yield FieldProblem("class_label", message, f"0–{CLASS_COUNT - 1}")
    elif not family.prompted_by_class and request.prompt is None:
        yield FieldProblem("prompt", "is required", "1–10000 characters")
    for field in sorted(family.required_fields):
        if getattr(request, field, None) is None:
            yield FieldProblem(field, f"is required: the weights of {model.id} are made for it")


def _where_instead(mode: Mode, catalogue: Catalogue) -> str:
    """The end of a sentence: which models can run a mode that one cannot."""
    able = [row.id for row in catalogue.models if mode in row.family_spec.modes and row.can_run(task_of(mode))]
    return f"; models here that do: {', '.join(able)}" if able else "; no model here does"


def _reference_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    """Yield a problem if the model cannot read so many reference images."""
    known = model.family_spec.references
    if not isinstance(request, ReferenceEditRequest) or known is None:
        return
    count, beside = known.max_count, ""
    if request.mask_image is not None and known.max_with_mask is not None:
        count, beside = known.max_with_mask, " beside mask_image"
    if len(request.references) <= count:
        return
    most = f"{count} {'entry' if count == 1 else 'entries'}"
    message = f"may have at most {most} for {model.id}{beside}, got {len(request.references)}; send fewer"
    yield FieldProblem("references", message, most)


def _model_limit_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    """Yield a problem for each field that this checkpoint ignores or limits further than its family does."""
    used = model.family_spec.modes.get(request_mode(request), frozenset())
    # A value that is the default of all models asks for nothing.
    fields = type(request).model_fields
    given = {
        name for name in request.model_fields_set if getattr(request, name) not in (None, fields[name].default)
    }
    for field in sorted(model.refused & given):
        yield FieldProblem(field, f"has no effect on {model.id}; remove it")
    skipped, limit = request.clip_skip, model.max_clip_skip
    if skipped is not None and skipped > limit and "clip_skip" in used:
        message = f"must be at most {limit} for {model.id}, whose text encoder has few layers, got {skipped}"
        yield FieldProblem("clip_skip", message, f"1–{limit}")
    length, longest = request.max_sequence_length, model.family_spec.max_sequence_length
    if length is not None and longest is not None and length > longest:
        message = f"must be at most {longest} for {model.family} models, got {length}"
        yield FieldProblem("max_sequence_length", message, f"1–{longest}")
    label, labels = request.class_label, model.class_labels
    if label is not None and labels is not None and (problem := label_problem(label, labels)) is not None:
        yield FieldProblem("class_label", problem, f"0–{CLASS_COUNT - 1}, or a name")


def _layer_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    """Yield what a model that makes layers cannot do beside them."""
    if not model.family_spec.makes_layers:
        return
    if (own := request.output_format) not in TRANSPARENT_FORMATS:
        remedy = f"set it to {' or '.join(TRANSPARENT_FORMATS)}"
        message = f"cannot be {own}, since the layers of {model.id} are transparent; {remedy}"
        yield FieldProblem("output_format", message, list(TRANSPARENT_FORMATS))
    most = model.family_spec.max_images
    if most is not None and request.num_images > most:
        message = f"must be {most} for {model.id}, which makes the layers of one image, got {request.num_images}"
        yield FieldProblem("num_images", f"{message}; send a request for each", most)


def _size_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    multiple = model.family_spec.size_multiple
    for field in ("width", "height"):
        side = getattr(request, field)
        if side is not None and side % multiple:
            nearest = [side - side % multiple, side - side % multiple + multiple]
            message = f"must be a multiple of {multiple}, got {side} (nearest: {nearest[0]}, {nearest[1]})"
            yield FieldProblem(field, message, nearest)
        elif model.family_spec.fixed_size and side not in (None, model.default(field)):
            own = model.default(field)
            message = f"must be {own}, since {model.id} makes images of one size only, got {side}; leave it out"
            yield FieldProblem(field, message, own)
    width, height = value_of(request, model, "width"), value_of(request, model, "height")
    if any(vars(request).get(field) for field in ("image", "control_image", "controls", "references")):
        # One side is enough, and the other follows an image; this is its minimum.
        width = MIN_SIDE if request.width is None and request.height is not None else width
        height = MIN_SIDE if request.height is None and request.width is not None else height
    if isinstance(width, int) and isinstance(height, int) and width * height > model.pixel_cap:
        field = "width" if request.width is not None and width >= height else "height"
        message = (
            f"is too large: width × height must be at most {model.pixel_cap} pixels for {model.id}, "
            f"got {width} × {height} = {width * height}"
        )
        yield FieldProblem(field, message, f"width × height ≤ {model.pixel_cap}")


def _seed_problems(request: JobRequest) -> Iterator[FieldProblem]:
    """Yield a problem if an image would get a seed that no request could name to make it again."""
    last = 0 if request.seed is None else request.seed + request.num_images - 1
    if last > MAX_SEED:
        message = (
            f"is too large for {request.num_images} images: image i uses seed + i, so the last would use {last}, "
            f"and seeds go up to {MAX_SEED}"
        )
        yield FieldProblem("seed", message, f"0–{MAX_SEED - request.num_images + 1}")


def _step_problems(request: JobRequest, model: ModelSpec, catalogue: Catalogue) -> Iterator[FieldProblem]:
    has_strength = "strength" in model.family_spec.modes.get(request_mode(request), ())
    rules = StepRules(
        steps=int(str(value_of(request, model, "num_inference_steps"))),
        strength=float(str(value_of(request, model, "strength"))) if has_strength else 1.0,
        scheduler=str(value_of(request, model, "scheduler")),
        speed=request.speed,
    )
    yield from rules.problems(model)
    yield from effect_problems(request, model, rules.steps_run)
    yield from refiner_problems(request, model, catalogue, rules)
    yield from cascade_problems(request, model, catalogue, rules)
    yield from hires_problems(request, model, catalogue, rules)


def _lora_problems(request: JobRequest, model: ModelSpec, catalogue: Catalogue) -> Iterator[FieldProblem]:
    loras = read_prompts(request).loras
    names = [row.id for row in catalogue.loras if row.suits(model)] if loras else []
    seen: set[str] = set()
    for field, lora in loras:
        try:
            row = catalogue.lora(lora.name)
        except NotFound:
            yield FieldProblem(field, f"unknown LoRA {lora.name[:80]!r}", names)
            continue
        if (message := row.misfit(model)) is not None:
            yield FieldProblem(field, message, names)
        if row.id in seen:
            yield FieldProblem(field, f"repeats {row.id}; name it once, with the sum of the scales")
        seen.add(row.id)
