"""Schedulers by public name: diffusers class, kind of model, options.

Rows are data; `worker/sampling/schedulers.py` makes the object. Options override the checkpoint's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

#: `diffusion` models predict noise or velocity along a beta schedule, `flow` models a rectified flow.
Kind = Literal["diffusion", "flow"]


@dataclass(frozen=True)
class SchedulerSpec:
    """A scheduler as clients name it.

    Attributes:
        id: public name.
        class_name: class in `diffusers`, made with `from_config` of the checkpoint's scheduler.
        kind: kind of model that it works with.
        options: configuration entries that it overrides.
        max_steps: maximum number of steps; None without a limit of its own.
    """

    id: str
    class_name: str
    kind: Kind
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    max_steps: int | None = None


_ROWS = (
    SchedulerSpec("euler", "EulerDiscreteScheduler", "diffusion"),
    SchedulerSpec("euler_karras", "EulerDiscreteScheduler", "diffusion", {"use_karras_sigmas": True}),
    SchedulerSpec("euler_a", "EulerAncestralDiscreteScheduler", "diffusion"),
    SchedulerSpec("heun", "HeunDiscreteScheduler", "diffusion"),
    SchedulerSpec("ddim", "DDIMScheduler", "diffusion"),
    SchedulerSpec("pndm", "PNDMScheduler", "diffusion", {"skip_prk_steps": True}),
    # Its steps are chosen from the 50 that LCM models are distilled on.
    SchedulerSpec("lcm", "LCMScheduler", "diffusion", max_steps=50),
    SchedulerSpec("unipc", "UniPCMultistepScheduler", "diffusion"),
    SchedulerSpec("dpmpp_2m", "DPMSolverMultistepScheduler", "diffusion"),
    SchedulerSpec("dpmpp_2m_karras", "DPMSolverMultistepScheduler", "diffusion", {"use_karras_sigmas": True}),
    SchedulerSpec(
        "dpmpp_2m_sde", "DPMSolverMultistepScheduler", "diffusion", {"algorithm_type": "sde-dpmsolver++"}
    ),
    SchedulerSpec("flow_euler", "FlowMatchEulerDiscreteScheduler", "flow"),
    SchedulerSpec(
        "flow_dpmpp_2m",
        "DPMSolverMultistepScheduler",
        "flow",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    ),
    SchedulerSpec(
        "flow_unipc",
        "UniPCMultistepScheduler",
        "flow",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    ),
)

SCHEDULERS: Mapping[str, SchedulerSpec] = MappingProxyType({row.id: row for row in _ROWS})


def names_for(kind: Kind) -> list[str]:
    """Return the public names of the schedulers that work with this kind of model, in the order of the table."""
    return [row.id for row in _ROWS if row.kind == kind]
