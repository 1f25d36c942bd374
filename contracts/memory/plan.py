"""What a memory plan is: a placement for each component, and the bytes and seconds that follow from it.

Also what it is made for (`Workload`), and every strategy that the operator permits (`Policy`).
Knows no sizes and no budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.catalogue.families import ALL_FAMILIES, Family, Mode
from contracts.catalogue.references import References
from contracts.catalogue.rows.models import ModelSpec
from contracts.memory.activations import WorkloadShape
from contracts.memory.policy import Policy
from contracts.memory.sizes.component import Component, ModelComponents, Origin, Role
from contracts.requests.fields import PROMPT_FIELDS
from contracts.requests.parameters import JobParameters


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


@dataclass(frozen=True)
class Workload:
    """Size and kind of one pipeline call.

    Attributes:
        extras: ControlNets and adapters that the request names.
        steps: denoising steps, for the estimate of seconds.
    """

    shape: WorkloadShape
    extras: tuple[Component, ...] = ()
    steps: int = 28


class PlacedComponent(BaseModel):
    """A component and its placement."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    name: str = Field(description="Name of the component, as diffusers names it.")
    role: Role = Field(description="What the component is for.")
    placement: Placement = Field(description="Where its weights are.")
    bytes: int = Field(description="All of its weights, as they are stored.")
    device_bytes: int = Field(description="Maximum of its weights on the device at one time, in bytes.")
    groups: Literal["block", "leaf"] | None = Field(
        None, description="What it is streamed by; null where it is not streamed."
    )
    origin: Origin = Field(
        "files",
        description="What its size was read from: its files, their headers on the hub, the published "
        "architecture, or assumed.",
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


def workload_of(
    family: str, job: JobParameters, images: int | None = None, extras: Sequence[Component] = ()
) -> Workload:
    """The workload of a call that generates this job's images.

    Args:
        family: id of its model's row in `families.py`, which may be that of other checkpoints.
        images: in the call; None: the job's own.
        extras: the ControlNets and adapters that the job names.
    """
    row = ALL_FAMILIES[family]
    known = row.references or References(0, "")
    modes = (Mode.INPAINT, Mode.EDIT_INPAINT) if known.beside_image else (Mode.INPAINT,)
    is_reference = row.reads_image_as_reference and job.mode in modes
    # Else image and mask are what a ControlNet for inpainting is given.
    begins = "strength" in row.modes.get(job.mode, ())
    tokens = [known.tokens_of(one.width, one.height) for one in job.references]
    if is_reference:
        tokens = [known.tokens_of(job.width, job.height, as_it_is=True)]
    shape = WorkloadShape(
        width=job.width,
        height=job.height,
        images=job.num_images if images is None else images,
        guided=_is_guided(row, job.guidance_scale),
        text_tokens=(job.max_sequence_length or _fixed_tokens(row, _prompt_bytes(job)))
        + sum(tokens)
        + sum(extra.prompt_tokens for extra in extras),
        instruction_tokens=_instruction_tokens(row),
        windows=job.max_windows,
        started=(begins and job.image is not None) or (job.mode is Mode.IMG2IMG and job.refiner is None),
        masked=begins and job.mask_image is not None,
        controls=len(job.controls) + (job.control_image is not None),
        controls_once=job.mode in row.controls_encoded_once,
        reference_pixels=job.reference_pixels + job.width * job.height * is_reference,
        layers=job.layers or 0,
    )
    return Workload(shape, tuple(extras), job.num_inference_steps)


def default_workload(model: ModelSpec, *, images: int = 1, size: tuple[int, int] | None = None) -> Workload:
    """The workload of a request that names no parameters, but for a size (width, height) that is given."""
    width, height = size or (_default(model, "width"), _default(model, "height"))
    known = model.family_spec.references
    # A model that only edits is given at least one.
    reference = known.scaled(width, height) if known and Mode.TXT2IMG not in model.family_spec.modes else None
    tokens = known.tokens_of(*reference) if known and reference else 0
    shape = WorkloadShape(
        width=width,
        height=height,
        images=images,
        guided=_is_guided(model.family_spec, _guidance_scale(model)),
        text_tokens=(_default(model, "max_sequence_length") or _fixed_tokens(model.family_spec)) + tokens,
        instruction_tokens=_instruction_tokens(model.family_spec),
        reference_pixels=math.prod(reference) if reference else 0,
        layers=_default(model, "layers"),
    )
    return Workload(shape, steps=_default(model, "num_inference_steps"))


def _fixed_tokens(family: Family, prompt_bytes: int | None = None) -> int:
    """The most tokens that its encoders read of a text where requests have no `max_sequence_length`.

    Args:
        prompt_bytes: of the text; None: it is as long as may be.
    """
    limits = (
        encoder.max_tokens if encoder.is_padded or prompt_bytes is None else min(encoder.max_tokens, prompt_bytes)
        for encoder in family.text_encoders
    )
    return max(limits, default=0)


def _instruction_tokens(family: Family) -> int:
    """The most tokens that its encoders read before a text, which the denoiser is not given."""
    return max((encoder.instruction_tokens for encoder in family.text_encoders), default=0)


def _prompt_bytes(job: JobParameters) -> int:
    """Bytes of the longest prompt: a token has at least one."""
    return max(len((job.text_of(field) or "").encode()) for field in PROMPT_FIELDS)


def _is_guided(family: Family, scale: float | None) -> bool:
    """Whether one step denoises each image with and without the prompt at once; true CFG does it in turn."""
    in_turn = family.negative_needs_true_cfg or family.guides_in_turn
    return not in_turn and scale is not None and scale > family.guidance_off


def _guidance_scale(model: ModelSpec) -> float | None:
    scale = model.default("guidance_scale")
    return None if scale is None or "guidance_scale" in model.refused else float(str(scale))


def _default(model: ModelSpec, field: str) -> int:
    return int(str(model.default(field) or 0))


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
