"""Rules about steps, without a request."""

from __future__ import annotations

import pytest

from contracts.requests.checks.step_rules import StepRules
from contracts.requests.entries import MAX_STEPS


@pytest.mark.parametrize("strength", [0.0, 0.0009])
def test_the_least_strength_that_an_error_names_leaves_a_step_to_run(strength: float) -> None:
    for steps in range(1, MAX_STEPS + 1):
        refused = StepRules(steps, strength, "euler", "exact")
        least = float(refused.allowed_strength.removeprefix("strength ≥ "))
        assert refused.steps_run < 1 <= StepRules(steps, least, "euler", "exact").steps_run
