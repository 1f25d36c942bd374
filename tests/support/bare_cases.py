"""What images of Darkroom are compared with: requests, and the calls of diffusers that they stand for.

The cases of a family are in its file of `untrained/`; `bare_diffusers.py` makes the calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts.catalogue.families import Mode
from tests.support.jobs import INPUT_IMAGES

IMAGE, MASK, CONTROL = (INPUT_IMAGES[f"inputs/{name}.png"] for name in ("image", "mask", "control"))
TEXTS = {"prompt": "a red circle", "negative_prompt": "a blue square"}
SIZE = {"width": 64, "height": 64}
START = {"image": IMAGE, "strength": 0.8}
CONTROL_FIELDS = {"conditioning_scale": 0.7, "guidance_start": 0.1, "guidance_end": 0.9}
CONTROL_CALL = {
    "controlnet_conditioning_scale": 0.7, "control_guidance_start": 0.1, "control_guidance_end": 0.9,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One request of Darkroom's, and the call of diffusers' that it stands for.

    Attributes:
        fields: of the request, beside its texts, steps and images.
        settings: entries of the scheduler's configuration that the call changes.
        pipeline: class in diffusers.
        call: what the call has beside texts and steps.
    """

    family: str
    mode: Mode
    pipeline: str
    call: Mapping[str, Any]
    fields: Mapping[str, Any] = field(default_factory=dict)
    scheduler: str = "euler"
    steps: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.family} {self.mode} {self.scheduler}"


def means_only(encode: Any) -> Any:
    """A VAE's `encode` that draws nothing: of what it encodes, the mean."""

    def call(pixels: Any) -> Any:
        encoded = encode(pixels)
        encoded.latent_dist.sample = encoded.latent_dist.mode
        return encoded

    return call
