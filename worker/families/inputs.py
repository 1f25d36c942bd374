"""Inputs of one pipeline call, and arguments that several families make of them. Knows no pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from PIL import Image

from contracts.requests.fields import PROMPT_FIELDS
from contracts.requests.parameters import JobParameters

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class GenerationInputs:
    """Inputs of one job's pipeline call.

    Attributes:
        image, mask, controls: images of the output's size; a control is None where the job's `image` serves, and
            the job's control image is the only one where it has no ControlNet.
        references: reference images, each of its own size.
        image_prompts: of each IP-Adapter, its images as they came.
        image_prompt_masks: of each IP-Adapter, where it acts, of the output's size; None: everywhere.
        latents: that the stage before has made, in which this one goes on; None in the first stage.
        starts: what each image starts from in place of `image`: images, or latents (n, channels, height, width).
    """

    job: JobParameters
    image: Image.Image | None = None
    mask: Image.Image | None = None
    controls: Sequence[Image.Image | None] = ()
    references: Sequence[Image.Image] = ()
    image_prompts: Sequence[Sequence[Image.Image]] = ()
    image_prompt_masks: Sequence[Image.Image | None] = ()
    latents: torch.Tensor | None = None
    starts: Sequence[Image.Image] | torch.Tensor = ()

    @property
    def texts(self) -> dict[str, str]:
        """Prompt field -> what the encoders read of it, without weights; without the fields that the job lacks."""
        texts = {field: self.job.text_of(field) for field in PROMPT_FIELDS}
        return {field: text for field, text in texts.items() if text is not None}

    @property
    def size(self) -> dict[str, int]:
        """Arguments for the output's size. Without them FLUX and SD3 use their own default."""
        return {"width": self.job.width, "height": self.job.height}

    @property
    def start(self) -> dict[str, Any]:
        """Arguments for the image to start from and the strength.

        The image is repeated for each generator: given once, some pipelines draw all noise from the first
        generator, and an image would depend on its position in the call.
        """
        images = self.starts if len(self.starts) else [self.image] * self.job.num_images
        return {"image": images, "strength": self.job.strength}

    @property
    def inpaint_mask(self) -> dict[str, Any]:
        """Argument for the mask, once per image."""
        return {"mask_image": [self.mask] * self.job.num_images}

    @property
    def guidance_scale(self) -> float:
        """The job's guidance scale, or 1 (no guidance in most families) for a model that ignores it."""
        return self.guidance_scale_or(1.0)

    def guidance_scale_or(self, off: float) -> float:
        """Return the job's guidance scale, or `off`, the family's value for none, for a model that ignores it."""
        return off if self.job.guidance_scale is None else self.job.guidance_scale

    @property
    def negative_prompt(self) -> str:
        """The negative prompt; empty if the job has none."""
        return self.texts.get("negative_prompt", "")

    def control_weights(self) -> dict[str, Any]:
        """Arguments for the scales and step ranges of the ControlNets."""
        controls = self.job.controls
        return {
            "controlnet_conditioning_scale": single_or_list([control.conditioning_scale for control in controls]),
            "control_guidance_start": single_or_list([control.guidance_start for control in controls]),
            "control_guidance_end": single_or_list([control.guidance_end for control in controls]),
        }


def single_or_list(values: Sequence[_Value]) -> _Value | list[_Value]:
    """Return the value for a single ControlNet, the list for several, as diffusers takes them."""
    return values[0] if len(values) == 1 else list(values)
