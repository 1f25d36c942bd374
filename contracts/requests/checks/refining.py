"""A refiner in a request: what must be true of it beside the request's model, and the stage that it runs.

A job with a refiner has two stages, each a job's parameters with a model of its own. Part of the checks in
`validation.py`. Knows no pipelines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.schedulers import SCHEDULERS, mismatch
from contracts.errors import FieldProblem, NotFound
from contracts.requests.checks.step_rules import StepRules
from contracts.requests.defaults import request_mode, value_of
from contracts.requests.entries import Refiner
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import JobRequest

#: Entries of a scheduler's configuration that say how much noise there is at a timestep.
_NOISE_SETTINGS = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps")

#: Of every published model.
_TRAINED_TIMESTEPS = 1000


def with_refiner(parameters: JobParameters, catalogue: Catalogue) -> JobParameters:
    """Return a job's parameters with its refiner's id in place of one of its other names."""
    refiner = parameters.refiner
    if refiner is None:
        return parameters
    named = refiner.model_copy(update={"model": catalogue.model(refiner.model).id})
    return parameters.model_copy(update={"refiner": named})


def refiners_of(model: ModelSpec, catalogue: Catalogue) -> list[ModelSpec]:
    """Return the models that can run the last steps of this one's images."""
    wanted = model.family_spec.refiners
    return [row for row in catalogue.models if wanted and row.family_spec.id == wanted]


def refiner_problems(
    request: JobRequest, model: ModelSpec, catalogue: Catalogue, rules: StepRules
) -> Iterator[FieldProblem]:
    """Yield what makes the request's refiner impossible, or without effect.

    Args:
        rules: of the request's own steps.
    """
    refiner = request.refiner
    used = model.family_spec.modes.get(request_mode(request), frozenset())
    if refiner is None or "refiner" not in used:
        return  # refused elsewhere
    known = [row.id for row in refiners_of(model, catalogue)]
    try:
        row = catalogue.model(refiner.model)
    except NotFound:
        yield FieldProblem("refiner.model", f"unknown model {refiner.model[:80]!r}", known)
        return
    if row.id not in known:
        yield FieldProblem("refiner.model", f"{row.id} is not a refiner for {model.id}", known)
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
        message = (
            f"{row.id} was trained on another noise schedule than {model.id}, so it cannot go on with its images"
        )
        yield FieldProblem("refiner.model", message)
    spec = SCHEDULERS.get(rules.scheduler)
    if spec is not None and spec.id in model.schedulers and spec.id not in row.schedulers:
        reason = mismatch(spec, row.scheduler_config) or "does not work with it"
        both = [name for name in model.schedulers if name in row.schedulers]
        yield FieldProblem("scheduler", f"{spec.id} {reason} ({row.id}, the refiner)", both)
    if rules.speed == "fast":
        yield FieldProblem("speed", "fast cannot be used together with refiner; remove one of them", "exact")
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
