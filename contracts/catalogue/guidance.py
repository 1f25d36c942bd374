"""Kinds of guidance beside plain classifier-free guidance: the options of each, with their defaults. Pure data.

Which kinds a family takes is in its row of `families.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

GuidanceKind = Literal["apg", "cfg_zero", "pag", "slg"]


@dataclass(frozen=True)
class GuidanceSpec:
    """A kind of guidance.

    Attributes:
        title: its name, for people.
        options: option -> its default; None where that depends on the model.
        needs_pass: whether it denoises the image a third time, with some layers changed.
    """

    title: str
    options: Mapping[str, object]
    needs_pass: bool = False


GUIDANCE_KINDS: Mapping[GuidanceKind, GuidanceSpec] = MappingProxyType(
    {
        # As the paper has them for SDXL: https://arxiv.org/abs/2410.02416
        "apg": GuidanceSpec(
            "Adaptive projected guidance",
            {"momentum": -0.5, "eta": 0.0, "norm_threshold": 15.0, "start": 0.0, "stop": 1.0},
        ),
        # https://arxiv.org/abs/2503.18886
        "cfg_zero": GuidanceSpec("CFG-Zero*", {"zero_steps": 1, "start": 0.0, "stop": 1.0}),
        # https://arxiv.org/abs/2403.17377
        "pag": GuidanceSpec(
            "Perturbed-attention guidance",
            {"scale": 3.0, "layers": None, "start": 0.0, "stop": 1.0},
            needs_pass=True,
        ),
        # As published with Stable Diffusion 3.5 Medium: https://github.com/Stability-AI/sd3.5
        "slg": GuidanceSpec(
            "Skip-layer guidance", {"scale": 2.8, "layers": None, "start": 0.01, "stop": 0.2}, needs_pass=True
        ),
    }
)
#: Layers that `slg` skips by default, of a model that has them; of a smaller one it skips the middle one.
SKIPPED_LAYERS = (7, 8, 9)
