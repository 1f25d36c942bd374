"""Checks the refiner of a request against the request's model.

A job with a refiner has two stages, each a job's parameters with a model of its own. Part of the checks in
`validation.py`. Knows no pipelines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.errors import FieldProblem
from contracts.requests.checks.second_models import both_model_problems, find_second_model
from contracts.requests.checks.step_rules import StepRules
from contracts.requests.defaults import value_of
from contracts.requests.entries import Refiner
from contracts.requests.schema import JobRequest

#: Entries of a scheduler's configuration that say how much noise there is at a timestep.
_NOISE_SETTINGS = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps")

#: Of every published model.
_TRAINED_TIMESTEPS = 1000


def refiner_problems(
    request: JobRequest, model: ModelSpec, catalogue: Catalogue, rules: StepRules
) -> Iterator[FieldProblem]:
    """Yield what makes the request's refiner impossible, or without effect.

    Args:
        rules: of the request's own steps.
    """
    refiner, row = request.refiner, find_second_model("refiner", request, model, catalogue)
    if isinstance(row, FieldProblem):
        yield row
    if refiner is None or not isinstance(row, ModelSpec):
        return
    yield from _model_problems(request, model, row, rules)
    yield from _step_problems(refiner, rules)
    most = SCHEDULERS[rules.scheduler].max_steps if rules.scheduler in SCHEDULERS else None
    if refiner.steps is not None and most is not None and refiner.steps > most:
        message = f"must be at most {most} with scheduler {rules.scheduler}, got {refiner.steps}"
        yield FieldProblem("refiner.steps", message, f"1–{most}")
    scale = value_of(request, model, "guidance_scale")
    is_guided = isinstance(scale, int | float) and scale > model.family_spec.guidance_off
    if "negative_aesthetic_score" in refiner.model_fields_set and not is_guided:
        message = f"has no effect while guidance_scale is {scale}; set that above 1, or remove this"
        yield FieldProblem("refiner.negative_aesthetic_score", message)


def _model_problems(
    request: JobRequest, model: ModelSpec, row: ModelSpec, rules: StepRules
) -> Iterator[FieldProblem]:
    """Yield what the refiner's checkpoint cannot do of what the request asks for."""
    if not _same_noise(model.scheduler_config, row.scheduler_config):
        message = f"{row.id} was trained on another noise schedule than {model.id}, so it cannot refine its images"
        yield FieldProblem("refiner.model", message)
    yield from both_model_problems("refiner", model, row, rules)
    if request.guidance is not None:
        yield FieldProblem("guidance", "cannot be used together with refiner; remove one of them")
    width, height = value_of(request, model, "width"), value_of(request, model, "height")
    if isinstance(width, int) and isinstance(height, int) and width * height > row.pixel_cap:
        message = (
            f"{row.id} refines at most {row.pixel_cap} pixels, got {width} × {height}; ask for a smaller image"
        )
        yield FieldProblem("refiner.model", message, f"width × height ≤ {row.pixel_cap}")


def _same_noise(settings: Mapping[str, object], others: Mapping[str, object]) -> bool:
    """Whether two checkpoints have the same noise at each timestep, as far as their settings are known."""
    if not settings or not others:
        return True
    given = [name for name in _NOISE_SETTINGS if name in settings and name in others]
    zero_snr = [bool(one.get("rescale_betas_zero_snr")) for one in (settings, others)]
    return zero_snr[0] == zero_snr[1] and all(settings[name] == others[name] for name in given)


def _step_problems(refiner: Refiner, rules: StepRules) -> Iterator[FieldProblem]:
    """Yield a stage that would have no step."""
    left = round(1 - refiner.switch_at, 6)
    # Of the usual spacings of timesteps, `leading` begins with the least noise, after whole strides.
    first_timestep = (rules.steps_run - 1) * (_TRAINED_TIMESTEPS // rules.steps) + 1
    is_late = first_timestep < _TRAINED_TIMESTEPS * left or rules.steps_run - rules.steps * left < 1
    if rules.steps_run >= 1 and is_late:
        name = "strength or num_inference_steps" if rules.strength < 1 else "num_inference_steps"
        message = (
            f"leaves no step to the request's model: of {rules.steps_run} steps that are run, the refiner takes "
            f"the last {rules.steps * left:.3g}; raise it, or {name}"
        )
        yield FieldProblem("refiner.switch_at", message)
    steps = refiner.steps or rules.steps
    if steps * left < 1:
        message = (
            f"leaves no step to the refiner: {left:.3g} of {steps} steps are fewer than one; lower it, or raise "
            "refiner.steps"
        )
        yield FieldProblem("refiner.switch_at", message, f"switch_at ≤ {1 - 1 / steps:.3f}")
