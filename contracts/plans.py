"""What a memory plan says: homes of components, bytes by stage, the operator's policy. Data that travels as JSON.

How a plan is found stands in `placement.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from contracts.activations import Canvas
from contracts.inventory import Component, Origin, Role

T5Policy = Literal["auto", "gpu", "cpu", "visit", "off"]


class Home(StrEnum):
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
class Load:
    """What one pipeline call is asked to do.

    Attributes:
        extras: ControlNets and adapters that the request names.
        steps: denoising steps; for the estimate of seconds.
    """

    canvas: Canvas
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
    home: Home
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
    def homes(self) -> dict[str, Home]:
        """Component -> home."""
        return {part.component: part.home for part in self.parts}


def gib(count: int) -> str:
    """Bytes for people, in GiB or MiB."""
    if not count:
        return "0"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 // 10 else f"{count / 2**20:.1f} MiB"
