"""What a memory plan says: homes of components, bytes by stage, the operator's policy. Data that travels as JSON.

How a plan is found stands in `placement.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Literal

from pydantic import BaseModel, ConfigDict

from contracts.catalogue.catalogue import ModelSpec
from contracts.catalogue.families import FAMILIES, Family
from contracts.memory.activations import WorkloadShape
from contracts.memory.components import Component, ModelComponents, Origin, Role
from contracts.requests.parameters import JobParameters

T5Policy = Literal["auto", "gpu", "cpu", "visit", "off"]


class Placement(StrEnum):
    """Where a component lives.

    `visit`: parked in pinned host memory, on the device only while its own stage runs; text encoders come one
    after the other. `cpu`: computed there, its results sent over. `streamed`: in pinned host memory, on the
    device group by group (diffusers' group offloading). `absent`: not loaded.
    """

    DEVICE = "device"
    VISIT = "visit"
    CPU = "cpu"
    STREAMED = "streamed"
    ABSENT = "absent"


@dataclass(frozen=True)
class Workload:
    """What one pipeline call is asked to do.

    Attributes:
        extras: ControlNets and adapters that the request names.
        steps: denoising steps; for the estimate of seconds.
    """

    canvas: WorkloadShape
    extras: tuple[Component, ...] = ()
    steps: int = 28


@dataclass(frozen=True)
class Policy:
    """What the operator of a worker wants and allows.

    Attributes:
        t5: `auto`: by the plan; `gpu`: on the device throughout; `visit`: brought in for the prompt, whole or
            group by group; `cpu`: computed there; `off`: left out of those families that can paint without it,
            `auto` for the others.
        allow_fp8: whether the denoiser may be stored in 8 bits, which changes images.
        allow_drop_t5: whether T5 may be left out where nothing else fits, which changes images.
        host_bytes: what may be parked in host memory; None: no bound.
    """

    t5: T5Policy = "auto"
    allow_fp8: bool = False
    allow_drop_t5: bool = False
    host_bytes: int | None = None


class Placed(BaseModel):
    """A component and its home.

    Attributes:
        bytes: the whole component, as it is stored.
        device_bytes: on the device at the most.
        groups: how it is streamed; None where it is not.
        origin: what its bytes were read from.
    """

    model_config = ConfigDict(frozen=True)

    component: str
    role: Role
    home: Placement
    bytes: int
    device_bytes: int
    groups: Literal["block", "leaf"] | None = None
    origin: Origin = "files"


class Plan(BaseModel):
    """One way to run one load.

    Attributes:
        rung: its name for people; unique on its ladder.
        tile_side: pixels; the VAE works image by image in tiles of this side. None: all at once.
        fp8: whether the denoiser's weights are stored in 8 bits.
        stage_bytes: `encode`, `denoise`, `decode` -> bytes on the device, weights and activations.
        activation_bytes: beyond the weights, in the stage that needs most of them.
        host_bytes: parked in host memory.
        images: in the call that was planned.
        batch_images: images of this size that one call may paint on this rung; 0 where it does not fit.
        batch_pixels: pixels that one call may paint on this rung; 0 where not even the weights fit.
        extra_seconds: what the rung costs a request beside everything resident, roughly.
        reason: why this rung, or why not, in one sentence.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    rung: str
    parts: tuple[Placed, ...]
    tile_side: int | None
    fp8: bool
    stage_bytes: dict[str, int]
    activation_bytes: int
    peak_bytes: int
    host_bytes: int
    budget_bytes: int
    fits: bool
    images: int
    batch_images: int
    batch_pixels: int
    extra_seconds: float
    reason: str

    @property
    def homes(self) -> dict[str, Placement]:
        """Component -> home."""
        return {part.component: part.home for part in self.parts}


def gib(count: int) -> str:
    """Bytes for people, in GiB or MiB."""
    if not count:
        return "0"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 // 10 else f"{count / 2**20:.1f} MiB"


def workload_of(
    family: str, job: JobParameters, images: int | None = None, extras: Sequence[Component] = ()
) -> Workload:
    """What a pipeline call does that paints this job, or a batch like it.

    Args:
        images: in the call; None: the job's own.
        extras: the weighed ControlNets and adapters that the job names.
    """
    canvas = WorkloadShape(
        width=job.width,
        height=job.height,
        images=job.num_images if images is None else images,
        guided=_is_guided(FAMILIES[family], job.guidance_scale),
        text_tokens=job.max_sequence_length or 0,
        started=job.image is not None,
        masked=job.mask_image is not None,
        controls=len(job.controls),
    )
    return Workload(canvas, tuple(extras), job.num_inference_steps)


def own_load(model: ModelSpec, *, images: int = 1, size: tuple[int, int] | None = None) -> Workload:
    """Images as the model's row has them by default, but for a size (width, height) that is given."""
    width, height = size or (_whole(model, "width"), _whole(model, "height"))
    canvas = WorkloadShape(
        width=width,
        height=height,
        images=images,
        guided=_is_guided(model.family_spec, float(str(model.default("guidance_scale")))),
        text_tokens=_whole(model, "max_sequence_length"),
    )
    return Workload(canvas, steps=_whole(model, "num_inference_steps"))


def _is_guided(family: Family, scale: float | None) -> bool:
    """Whether both passes of guidance go through the denoiser at once; true guidance runs them in turn."""
    return not family.negative_needs_true_cfg and scale is not None and scale > 1


def _whole(model: ModelSpec, field: str) -> int:
    return int(str(model.default(field) or 0))


@dataclass(frozen=True)
class Strategy:
    """A home for each role, and how the VAE and the denoiser work."""

    text_encoder: Placement
    t5: Placement
    denoiser: Placement
    vae: Placement
    tiled: bool
    fp8: bool

    def home(self, role: Role) -> Placement:
        """Where components of this role live; ControlNets go with the denoiser, adapters stay with the device."""
        homes = {Role.TEXT_ENCODER: self.text_encoder, Role.T5: self.t5, Role.VAE: self.vae}
        return Placement.DEVICE if role is Role.ADAPTER else homes.get(role, self.denoiser)


def strategies(inventory: ModelComponents, policy: Policy) -> Iterator[Strategy]:
    """All combinations that the policy allows; without a T5 its homes count once."""
    has_t5 = any(component.role is Role.T5 for component in inventory.components)
    stay_or_visit = (Placement.DEVICE, Placement.VISIT)
    choices = product(
        stay_or_visit,
        _t5_homes(inventory, policy) if has_t5 else (Placement.DEVICE,),
        (*stay_or_visit, Placement.STREAMED),
        stay_or_visit,
        (False, True),
        (False, True) if policy.allow_fp8 else (False,),
    )
    for choice in choices:
        yield Strategy(*choice)


def _t5_homes(inventory: ModelComponents, policy: Policy) -> tuple[Placement, ...]:
    if policy.t5 == "off" and inventory.t5_optional:
        return (Placement.ABSENT,)
    last = (Placement.ABSENT,) if policy.allow_drop_t5 and inventory.t5_optional else ()
    every = (Placement.DEVICE, Placement.VISIT, Placement.STREAMED, Placement.CPU)
    allowed = {"gpu": (Placement.DEVICE,), "visit": (Placement.VISIT, Placement.STREAMED), "cpu": (Placement.CPU,)}
    return (*allowed.get(policy.t5, every), *last)
