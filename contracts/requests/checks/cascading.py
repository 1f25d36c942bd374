"""Checks the cascade of a request: its second model against the request's model. Knows no pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem
from contracts.requests.checks.effects import thresholding_problems
from contracts.requests.checks.second_models import both_model_problems, find_second_model
from contracts.requests.checks.step_rules import StepRules
from contracts.requests.defaults import value_of
from contracts.requests.entries import CASCADE_SCALE, Cascade
from contracts.requests.schema import JobRequest


def cascade_problems(
    request: JobRequest, model: ModelSpec, catalogue: Catalogue, rules: StepRules
) -> Iterator[FieldProblem]:
    """Yield what makes the request's cascade impossible, or without effect.

    Args:
        rules: of the request's own steps.
    """
    cascade, row = request.cascade, find_second_model("cascade", request, model, catalogue)
    if isinstance(row, FieldProblem):
        yield row
    if cascade is None or not isinstance(row, ModelSpec):
        return
    yield from both_model_problems("cascade", model, row, rules)
    yield from _step_problems(cascade, request, rules)
    yield from thresholding_problems("cascade.dynamic_thresholding", cascade.dynamic_thresholding, row)
    width, height = (value_of(request, model, side) for side in ("width", "height"))
    if isinstance(width, int) and isinstance(height, int):
        pixels = width * height * CASCADE_SCALE**2
        if pixels > row.pixel_cap:
            message = (
                f"{row.id} makes at most {row.pixel_cap} pixels, and {pixels} from {width} × {height}; ask for "
                "a smaller image"
            )
            yield FieldProblem("cascade.model", message, f"width × height ≤ {row.pixel_cap // CASCADE_SCALE**2}")


def _step_problems(cascade: Cascade, request: JobRequest, rules: StepRules) -> Iterator[FieldProblem]:
    """Yield a second stage that would have no step, or a strength without an image."""
    starts = getattr(request, "image", None) is not None
    if cascade.strength is not None and not starts:
        yield FieldProblem("cascade.strength", "has no effect without an image to start from; remove it")
        return
    strength = (cascade.strength or rules.strength) if starts else 1.0
    second = replace(rules, steps=cascade.steps, strength=strength)
    if second.steps_run < 1:
        message = f"{strength:g} of {cascade.steps} steps leaves none to run; raise it, or cascade.steps"
        yield FieldProblem("cascade.strength", message, second.allowed_strength)
