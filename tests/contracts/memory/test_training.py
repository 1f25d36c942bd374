"""What a training takes of the device: text encoders that learn are counted, and must be there as a whole."""

from __future__ import annotations

import pytest

from contracts.memory.components import Role
from contracts.memory.plan import PlacedComponent, Placement, Plan
from contracts.memory.training import activation_bytes, refusal, state_bytes
from contracts.requests.task_parameters import JobTask
from contracts.requests.training.parameters import TrainingParameters
from contracts.requests.training.settings import TrainingSettings
from tests.support.parameters import parameters

GIB = 2**30


def plan(clip: Placement = Placement.DEVICE, t5: Placement = Placement.DEVICE) -> Plan:
    """12 GiB, in half precision, of 24."""
    parts = (("text_encoder", Role.TEXT_ENCODER, clip, 1), ("text_encoder_3", Role.T5, t5, 5),
             ("transformer", Role.DENOISER, Placement.DEVICE, 4))  # fmt: skip
    return Plan(
        model="m", name="p", tile_side=None, fp8=False, stage_bytes={}, activation_bytes=2 * GIB,
        peak_bytes=12 * GIB, host_bytes=0, budget_bytes=24 * GIB, fits=True, images=1, batch_images=1,
        batch_pixels=1, extra_seconds=0.0, reason="",
        components=tuple(
            PlacedComponent(name=name, role=role, placement=place, bytes=size * GIB, device_bytes=size * GIB)
            for name, role, place, size in parts
        ),
    )  # fmt: skip


def training(*, text: bool) -> TrainingParameters:
    settings = TrainingSettings(rank=16, alpha=16, steps=1, resolution=64, seed=0, train_text_encoder=text)
    return TrainingParameters(
        task=JobTask.TRAINING, model="m", name="n", settings=settings, images=(), snapshot_every_steps=1,
        checkpoint_every_steps=1, sample=parameters(),
    )  # fmt: skip


def test_text_encoders_that_learn_take_memory() -> None:
    without, with_text = training(text=False), training(text=True)
    # A quarter more values than those of the denoiser, and activations of a caption.
    assert state_bytes(plan(), with_text, 2) == pytest.approx(1.25 * state_bytes(plan(), without, 2))
    assert activation_bytes(plan(), with_text) == activation_bytes(plan(), without) + 5 * GIB // 4


def test_text_encoders_that_learn_must_be_on_the_device() -> None:
    away = plan(clip=Placement.ON_DEMAND)
    assert refusal(away, training(text=False), 2) is None
    assert "the text encoder does not fit as a whole" in (refusal(away, training(text=True), 2) or "")


def test_a_t5_reads_captions_in_each_step_unless_it_is_left_out() -> None:
    assert "the t5 does not fit as a whole" in (refusal(plan(t5=Placement.CPU), training(text=True), 2) or "")
    assert refusal(plan(t5=Placement.SKIPPED), training(text=True), 2) is None
