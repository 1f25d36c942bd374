"""What a memory plan is: a placement for each component, and the bytes and seconds that follow from it.

Also every strategy that the operator permits (`Policy`). Knows no sizes and no budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.memory.policy import Policy
from contracts.memory.sizes.component import ModelComponents, Origin, Role


class Placement(StrEnum):
    """Location of a component's weights.

    `device`: on the device throughout. `on_demand`: in pinned host memory, copied to the device for its own stage
    (accelerate's model offload); text encoders come one after the other. `cpu`: computed on the CPU, only its
    results go to the device. `streamed`: in pinned host memory, copied to the device group by group (diffusers'
    group offloading). `skipped`: not loaded.
    """

    DEVICE = "device"
    ON_DEMAND = "on_demand"
    CPU = "cpu"
    STREAMED = "streamed"
    SKIPPED = "skipped"


class PlacedComponent(BaseModel):
    """A component and its placement."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    name: str = Field(description="Name of the component, as diffusers names it.")
    role: Role = Field(description="Role of the component.")
    placement: Placement = Field(description="Where its weights are.")
    bytes: int = Field(description="All of its weights, as they are stored.")
    device_bytes: int = Field(description="Maximum of its weights on the device at one time, in bytes.")
    groups: Literal["block", "leaf"] | None = Field(
        None, description="Unit in which it is streamed; null if it is not streamed."
    )
    origin: Origin = Field(
        "files",
        description="Source of its size: its files, their headers on the hub, the published architecture, or an "
        "assumption.",
    )


class Plan(BaseModel):
    """One strategy for one workload, with its bytes and seconds."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    model: str = Field(description="Id of the model.")
    name: str = Field(description="Name of the plan, for people; unique among the plans for a request.")
    components: tuple[PlacedComponent, ...] = Field(
        description="The model's components, with those of the request's ControlNets and LoRAs."
    )
    tile_side: int | None = Field(
        description="Side in pixels of the tiles in which the VAE decodes, image by image; null: all images at "
        "once."
    )
    fp8: bool = Field(description="Whether the denoiser's weights are stored in 8 bits, which changes images.")
    stage_bytes: dict[str, int] = Field(
        description="`encode`, `denoise`, `decode`, of a refiner `refiner:encode`, … and of a second pass "
        "`hires:encode`, … -> bytes on the device, weights and activations."
    )
    activation_bytes: int = Field(description="Bytes beyond the weights, in the stage that needs most of them.")
    graph_bytes: int | None = Field(
        None,
        description="Activations of the denoiser that its CUDA graphs keep on the device throughout; null where "
        "none are replayed.",
    )
    peak_bytes: int = Field(description="Maximum of device memory over all stages, in bytes.")
    host_bytes: int = Field(description="Weights in host memory, in bytes.")
    budget_bytes: int = Field(description="Device memory that the worker may use, in bytes.")
    fits: bool = Field(description="Whether the plan needs no more than the budget.")
    images: int = Field(description="Images in the planned call.")
    batch_images: int = Field(
        description="Images of this size that one call can generate within the budget; 0 where not even one fits."
    )
    batch_pixels: int = Field(
        description="Pixels that one call can generate within the budget; 0 where not even the weights fit."
    )
    extra_seconds: float = Field(
        description="Estimated seconds that the plan costs a request, compared with everything on the device."
    )
    reason: str = Field(description="Why this plan was chosen, or why none fits, in one sentence.")

    @property
    def placements(self) -> dict[str, Placement]:
        """Component -> placement."""
        return {component.name: component.placement for component in self.components}

    @property
    def has_lora_slots(self) -> bool:
        """Whether LoRAs may act on a compiled denoiser: their slots are among its components."""
        return any(component.role is Role.LORA_SLOTS for component in self.components)


#: Placement of what no strategy moves.
_ALWAYS: Mapping[Role, Placement] = MappingProxyType(
    {
        Role.ADAPTER: Placement.DEVICE,
        Role.LORA_SLOTS: Placement.DEVICE,
        Role.PREVIEW_VAE: Placement.DEVICE,
        Role.IMAGE_ENCODER: Placement.CPU,
    }
)


@dataclass(frozen=True)
class Strategy:
    """A placement for each role, and how the VAE and the denoiser work."""

    text_encoder: Placement
    t5: Placement
    denoiser: Placement
    vae: Placement
    tiled: bool
    fp8: bool

    def placement(self, role: Role) -> Placement:
        """Placement of this role's components: ControlNets as the denoiser, adapters, their slots and a VAE for
        previews always on the device, image encoders never.
        """
        if role in _ALWAYS:
            return _ALWAYS[role]
        chosen = {Role.TEXT_ENCODER: self.text_encoder, Role.T5: self.t5, Role.VAE: self.vae}
        return chosen.get(role, self.denoiser)


def strategies(model: ModelComponents, policy: Policy) -> Iterator[Strategy]:
    """All combinations that the policy allows; placements of T5 are varied only where the model has one."""
    has_t5 = any(component.role is Role.T5 for component in model.components)
    is_packed = any(component.is_packed for component in model.components if component.role is Role.DENOISER)
    unstreamed = (Placement.DEVICE, Placement.ON_DEMAND)
    choices = product(
        # Beside T5, other text encoders are small.
        unstreamed if has_t5 else (*unstreamed, Placement.STREAMED),
        _t5_placements(model, policy) if has_t5 else (Placement.DEVICE,),
        (*unstreamed, Placement.STREAMED),
        unstreamed,
        (False, True),
        (False, True) if policy.allow_fp8 and not is_packed else (False,),
    )
    for choice in choices:
        yield Strategy(*choice)


def _t5_placements(model: ModelComponents, policy: Policy) -> tuple[Placement, ...]:
    if policy.t5 == "off" and model.t5_optional:
        return (Placement.SKIPPED,)
    last = (Placement.SKIPPED,) if policy.allow_drop_t5 and model.t5_optional else ()
    every = (Placement.DEVICE, Placement.ON_DEMAND, Placement.STREAMED, Placement.CPU)
    allowed = {
        "gpu": (Placement.DEVICE,),
        "on_demand": (Placement.ON_DEMAND, Placement.STREAMED),
        "cpu": (Placement.CPU,),
    }
    return (*allowed.get(policy.t5, every), *last)
