"""Checks the second pass of a request against the request's model. Knows no pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode, Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.rows.networks import LANCZOS, LATENT
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.errors import FieldProblem
from contracts.requests.checks.step_rules import StepRules
from contracts.requests.defaults import request_mode, value_of
from contracts.requests.entries import Hires
from contracts.requests.fields import MAX_SIDE
from contracts.requests.images.output_size import SizeRules
from contracts.requests.schema import JobRequest


def hires_upscalers(model: ModelSpec, catalogue: Catalogue) -> list[str]:
    """Return what can enlarge this model's images for a second pass; empty where it can make none."""
    if "hires" not in model.family_spec.modes.get(Mode.TXT2IMG, ()) or not model.can_run(Task.IMG2IMG):
        return []
    latents = [LATENT] if model.family_spec.starts_from_latents else []
    return [LANCZOS, *latents, *(row.id for row in catalogue.upscalers)]


def hires_problems(
    request: JobRequest, model: ModelSpec, catalogue: Catalogue, rules: StepRules
) -> Iterator[FieldProblem]:
    """Yield what makes the request's second pass impossible, or without effect.

    Args:
        rules: of the first pass.
    """
    hires, mode = request.hires, request_mode(request)
    if hires is None or "hires" not in model.family_spec.modes.get(mode, ()):
        return  # refused elsewhere
    if not model.can_run(Task.IMG2IMG):
        yield FieldProblem("hires", f"needs a model that can run img2img, which {model.id} cannot; remove it")
        return
    known = hires_upscalers(model, catalogue)
    if hires.upscaler == LATENT and LATENT not in known:
        message = (
            f"{LATENT} is not possible with {model.id} ({model.family_spec.id}), which starts from images only"
        )
        yield FieldProblem("hires.upscaler", message, known)
    elif hires.upscaler not in known:
        yield FieldProblem("hires.upscaler", f"unknown upscaler {hires.upscaler[:80]!r}", known)
    if request.refiner is not None:
        yield FieldProblem("hires", "cannot be used together with refiner; remove one of them")
    if rules.speed == "fast":
        yield FieldProblem("speed", "fast cannot be used together with hires; remove one of them", "exact")
    yield from _step_problems(hires, rules)
    yield from _size_problems(hires, request, model)
    for field in sorted(
        model.family_spec.modes[mode] - model.family_spec.modes[Mode.IMG2IMG] - {"hires", "refiner"}
    ):
        if value_of(request, model, field):
            message = f"has no effect in the second pass of hires with {model.id}; remove one of them"
            yield FieldProblem(field, message)


def _step_problems(hires: Hires, rules: StepRules) -> Iterator[FieldProblem]:
    second = replace(rules, steps=hires.steps or rules.steps, strength=hires.strength)
    if second.steps_run < 1:
        message = f"{hires.strength:g} of {second.steps} steps leaves none to run; raise it, or hires.steps"
        yield FieldProblem("hires.strength", message, second.allowed_strength)
    most = SCHEDULERS[rules.scheduler].max_steps if rules.scheduler in SCHEDULERS else None
    if hires.steps is not None and most is not None and hires.steps > most:
        message = f"must be at most {most} with scheduler {rules.scheduler}, got {hires.steps}"
        yield FieldProblem("hires.steps", message, f"1–{most}")


def _size_problems(hires: Hires, request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    size = value_of(request, model, "width"), value_of(request, model, "height")
    width, height = (side if isinstance(side, int) else 0 for side in size)
    if not width or not height:
        return  # refused elsewhere
    sizes = SizeRules.of(model)
    larger = sizes.enlarged((width, height), hires.scale)
    if larger[0] <= width or larger[1] <= height:
        message = f"leaves {width} × {height} as it is: sides are multiples of {sizes.multiple}; raise it"
        yield FieldProblem("hires.scale", message)
    elif max(larger) > MAX_SIDE or larger[0] * larger[1] > sizes.max_pixels:
        most = min(MAX_SIDE / max(width, height), (sizes.max_pixels / (width * height)) ** 0.5)
        message = (
            f"is too large: {width} × {height} would become {larger[0]} × {larger[1]}, and {model.id} makes sides "
            f"of up to {MAX_SIDE} and {sizes.max_pixels} pixels; lower it, or width and height"
        )
        yield FieldProblem("hires.scale", message, f"scale ≤ {int(most * 100) / 100:g}")
