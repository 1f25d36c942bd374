"""Rules about steps, without a request."""

from __future__ import annotations

import pytest

from contracts.catalogue.rows.models import ModelSpec
from contracts.requests.checks.step_rules import StepRules
from contracts.requests.entries import MAX_STEPS


@pytest.mark.parametrize("strength", [0.0, 0.0009])
def test_the_least_strength_that_an_error_names_leaves_a_step_to_run(strength: float) -> None:
    for steps in range(1, MAX_STEPS + 1):
        refused = StepRules(steps, strength, "euler", "exact")
        least = float(refused.allowed_strength.removeprefix("strength ≥ "))
        assert refused.steps_run < 1 <= StepRules(steps, least, "euler", "exact").steps_run


@pytest.mark.parametrize(("steps", "config", "is_refused"), [(1, 0.02, True), (2, 0.02, False), (1, None, False)])
def test_a_schedule_that_ends_above_zero_noise_takes_two_steps(
    steps: int, config: float | None, is_refused: bool
) -> None:
    model = ModelSpec(id="m", family="qwen-image", source="m", scheduler_config={"shift_terminal": config})
    problems = list(StepRules(steps, 1.0, "flow_euler", "exact").problems(model))
    assert [(one.field, one.allowed) for one in problems] == [("num_inference_steps", "2–200")] * is_refused
