"""A training, and the plan of a worker for its images."""

from __future__ import annotations

from contracts.memory.plan import PlacedComponent, Placement, Plan
from contracts.memory.sizes.component import Role
from contracts.requests.task_parameters import JobTask
from contracts.requests.training.parameters import TrainingParameters
from contracts.requests.training.settings import Kind, TrainingSettings
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


def training(*, text: bool = False, kind: Kind = "lora") -> TrainingParameters:
    """One step; `text`: whether the text encoders learn too."""
    settings = TrainingSettings(
        kind=kind, rank=16, alpha=16, steps=1, resolution=64, seed=0, train_text_encoder=text
    )
    return TrainingParameters(
        task=JobTask.TRAINING, model="m", name="n", settings=settings, images=(), snapshot_every_steps=1,
        checkpoint_every_steps=1, sample=parameters(),
    )  # fmt: skip
