"""The denoising steps that a request asks for: what drives them, how many run, whether any can be predicted.

Part of `validation.py`'s rules; knows no request, only numbers and the model's row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from contracts.catalogue.catalogue import ModelSpec
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.errors import FieldProblem
from contracts.requests.schema import Speed


@dataclass(frozen=True)
class Steps:
    """What a request says of its steps, defaults filled in.

    Attributes:
        count: of the whole way from noise to image.
        strength: the part of them that runs; 1 where there is no image to start from.
    """

    count: int
    strength: float
    scheduler: str
    speed: Speed

    @property
    def running(self) -> int:
        """Steps that really run."""
        return int(self.count * self.strength)

    def problems(self, model: ModelSpec) -> Iterator[FieldProblem]:
        """Everything that this model cannot do of it."""
        yield from self._scheduler_problems(model)
        if self.running < 1:
            message = f"{self.strength} × {self.count} steps leaves no step to run; raise either"
            yield FieldProblem("strength", message, f"strength ≥ {1 / self.count:.3f}")
        least = model.family_spec.step_cache.min_steps
        if self.speed == "fast" and self.running < least:
            message = f"fast predicts steps from those before, and only {self.running} run; leave it out"
            allowed = f"exact, or num_inference_steps ≥ {math.ceil(least / self.strength)}"
            yield FieldProblem("speed", message, allowed)

    def _scheduler_problems(self, model: ModelSpec) -> Iterator[FieldProblem]:
        spec, kind = SCHEDULERS.get(self.scheduler), model.family_spec.kind
        if spec is None:
            yield FieldProblem("scheduler", f"there is no scheduler {self.scheduler!r}", model.schedulers)
        elif spec.kind != kind:
            message = f"{spec.id} drives {spec.kind} models and {model.id} is a {kind} model"
            yield FieldProblem("scheduler", message, model.schedulers)
        elif spec.max_steps is not None and self.count > spec.max_steps:
            message = f"{spec.id} takes {spec.max_steps} steps at the most"
            yield FieldProblem("num_inference_steps", message, f"1–{spec.max_steps}")
