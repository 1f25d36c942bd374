"""What a training takes of the device: text encoders that learn are counted, and must be there as a whole."""

from __future__ import annotations

import pytest

from contracts.memory.plan import Placement
from contracts.memory.training import activation_bytes, refusal, state_bytes
from tests.support.training_plans import GIB, plan, training


def test_text_encoders_that_learn_take_memory() -> None:
    without, with_text = training(text=False), training(text=True)
    # A quarter more values than those of the denoiser, and activations of a caption.
    state, state_with_text = (state_bytes(plan(), job, 2, "sd3") for job in (without, with_text))
    assert state_with_text == pytest.approx(1.25 * state)
    assert activation_bytes(plan(), with_text) == activation_bytes(plan(), without) + 5 * GIB // 4


def test_text_encoders_that_learn_must_be_on_the_device() -> None:
    away = plan(clip=Placement.ON_DEMAND)
    assert refusal(away, training(text=False), 2, "sdxl") is None
    assert "the text encoder does not fit as a whole" in (refusal(away, training(text=True), 2, "sdxl") or "")


def test_a_t5_reads_captions_in_each_step_unless_it_is_left_out() -> None:
    assert "the t5 does not fit as a whole" in (
        refusal(plan(t5=Placement.CPU), training(text=True), 2, "sd3") or ""
    )
    assert refusal(plan(t5=Placement.SKIPPED), training(text=True), 2, "sd3") is None
