"""Images by diffusers alone, as its documentation has people make them. Knows nothing of Darkroom.

What these scripts paint, Darkroom's images equal bit for bit (`tests/worker/families/test_bare_diffusers.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
from PIL import Image

#: Public name of a scheduler -> its class in diffusers, and what is changed of the checkpoint's configuration.
SCHEDULERS: Mapping[str, tuple[str, dict[str, Any]]] = MappingProxyType(
    {
        "euler": ("EulerDiscreteScheduler", {}),
        "euler_a": ("EulerAncestralDiscreteScheduler", {}),
        "pndm": ("PNDMScheduler", {}),
        "euler_trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
        "ddim": ("DDIMScheduler", {}),
        "tcd": ("TCDScheduler", {}),
        "lcm": ("LCMScheduler", {}),
        "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
        "flow_euler": ("FlowMatchEulerDiscreteScheduler", {}),
        "flow_dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
        "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    }
)


def paint(
    folder: Path,
    pipeline: str,
    call: Mapping[str, Any],
    *,
    scheduler: str,
    seed: int,
    controlnet: Any = None,
    prepare: Callable[[Any], None] | None = None,
) -> Image.Image:
    """Return the image of one call.

    Args:
        folder: checkpoint in diffusers layout.
        pipeline: class in diffusers.
        call: arguments of the pipeline's call.
        prepare: a change that the checkpoint needs, where the installed libraries do not agree with each other.
    """
    parts = {} if controlnet is None else {"controlnet": controlnet}
    painter = getattr(diffusers, pipeline).from_pretrained(folder, **parts)
    class_name, changed = SCHEDULERS[scheduler]
    painter.scheduler = getattr(diffusers, class_name).from_config(painter.scheduler.config, **changed)
    painter.set_progress_bar_config(disable=True)
    if prepare is not None:
        prepare(painter)
    image: Image.Image = painter(**call, generator=torch.Generator("cpu").manual_seed(seed)).images[0]
    return image
