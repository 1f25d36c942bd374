"""New ControlNets of the published architectures: as large as is planned for, and read by a file alone."""

from __future__ import annotations

import diffusers
import pytest
import torch

from contracts.memory.plan import PlacedComponent, Placement
from contracts.memory.sizes.component import Role
from contracts.memory.training import state_bytes
from contracts.requests.training.request import TRAINABLE_FAMILIES
from contracts.weights.counts.architectures import architectures_of
from tests.support.combinations import usual_or_all
from tests.support.training_plans import plan, training
from worker.families import get_family
from worker.training.trainees.copies import copy_transformer, copy_unet

#: Of AdamW: weight, gradient and two averages in float32.
VALUE_BYTES = 16
PUBLISHED = [
    (family, architecture.id)
    for family in TRAINABLE_FAMILIES["controlnet"]
    for architecture in architectures_of(family)
]


@pytest.mark.parametrize(("family", "id"), usual_or_all(("flux", "flux.1-dev"), PUBLISHED))
def test_the_plan_has_room_for_a_new_controlnet_and_not_for_much_more(family: str, id: str) -> None:
    row = get_family(family)
    (published,) = (one for one in architectures_of(family) if one.id == id)
    with torch.device("meta"):
        denoiser = getattr(diffusers, row.denoiser_class).from_config(dict(published.configs[row.denoiser]))
        if row.denoiser == "unet":
            net = copy_unet(denoiser, levels=4, seed=0)
        else:
            net = copy_transformer(getattr(diffusers, row.controlnet), denoiser)
    part = PlacedComponent(
        name=row.denoiser,
        role=Role.DENOISER,
        placement=Placement.DEVICE,
        bytes=2 * published.counts[row.denoiser].values,
        device_bytes=0,
    )
    alone = plan().model_copy(update={"components": (part,)})
    planned = state_bytes(alone, training(kind="controlnet"), 2, family)
    values = sum(parameter.numel() for parameter in net.parameters())
    assert 1 <= planned / VALUE_BYTES / values < 1.4
