"""Rules about denoising steps: which scheduler runs them, how many remain, whether `speed: fast` applies.

Part of the checks in `validation.py`. Knows the model's row and the values of the fields, not the request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.schedulers import SCHEDULERS, mismatch
from contracts.errors import FieldProblem
from contracts.requests.entries import MAX_STEPS
from contracts.requests.fields import Speed


@dataclass(frozen=True)
class StepRules:
    """A request's values that decide about its steps, defaults filled in.

    Attributes:
        steps: `num_inference_steps`, from pure noise to the image.
        strength: share of the steps that is run; 1 without an image to start from.
    """

    steps: int
    strength: float
    scheduler: str
    speed: Speed

    @property
    def steps_run(self) -> int:
        """Number of steps that are really run."""
        return int(self.steps * self.strength)

    @property
    def allowed_strength(self) -> str:
        """The least strength, in thousandths, of which a step remains."""
        return f"strength ≥ {math.ceil(1000 / self.steps) / 1000:g}"

    def problems(self, model: ModelSpec) -> Iterator[FieldProblem]:
        """Yield what this model cannot run."""
        yield from self._scheduler_problems(model)
        if self.steps_run < 1:
            message = f"{self.strength:g} of {self.steps} steps leaves none to run; raise strength or the steps"
            yield FieldProblem("strength", message, self.allowed_strength)
        min_steps = model.family_spec.step_cache.min_steps
        if self.speed == "fast" and self.steps_run < min_steps:
            message = (
                f"fast needs at least {min_steps} steps to run, got {self.steps_run}; use exact or more steps"
            )
            yield FieldProblem("speed", message, self._allowed_speed(min_steps))

    def _allowed_speed(self, min_steps: int) -> str:
        """What would be accepted; of a strength that is next to nothing, no number of steps is enough."""
        if self.strength * MAX_STEPS < min_steps:
            return "exact"
        return f"exact, or num_inference_steps ≥ {math.ceil(min_steps / self.strength)}"

    def _scheduler_problems(self, model: ModelSpec) -> Iterator[FieldProblem]:
        spec, kind = SCHEDULERS.get(self.scheduler), model.family_spec.kind
        if spec is None:
            yield FieldProblem("scheduler", f"unknown scheduler {self.scheduler[:80]!r}", model.schedulers)
        elif reason := mismatch(spec, model.scheduler_config):
            yield FieldProblem("scheduler", f"{spec.id} {reason} ({model.id})", model.schedulers)
        elif spec.scales_noise and model.family_spec.unit_noise:
            message = f"{spec.id} starts from scaled noise, which the pipeline of {model.id} lacks; use another"
            yield FieldProblem("scheduler", message, model.schedulers)
        elif not model.takes(spec):
            message = f"{spec.id} works with {spec.kind} models, and {model.id} is a {kind} model"
            yield FieldProblem("scheduler", message, model.schedulers)
        elif spec.max_steps is not None and self.steps > spec.max_steps:
            message = f"must be at most {spec.max_steps} with scheduler {spec.id}, got {self.steps}"
            yield FieldProblem("num_inference_steps", message, f"1–{spec.max_steps}")
        elif self.steps < 2 and model.scheduler_config.get("shift_terminal"):
            # diffusers stretches the steps so that the last one begins there; it divides 0 by 0 for a single one.
            message = f"must be at least 2: the schedule of {model.id} has a shift_terminal, got {self.steps}"
            yield FieldProblem("num_inference_steps", message, f"2–{spec.max_steps or MAX_STEPS}")
