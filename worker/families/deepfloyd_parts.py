"""What DeepFloyd IF's stages share: pixels in place of latents, and prompts as T5 reads them. Not a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from worker.families.inputs import GenerationInputs
from worker.families.prompts import PromptEncoding

#: Cleaning depends on which packages are installed.
AS_IT_IS = {"clean_caption": False}


def usual_arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return arguments that all pipelines take."""
    return {
        "num_inference_steps": inputs.job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        **AS_IT_IS,
    }


def start(inputs: GenerationInputs, image: str) -> dict[str, Any]:
    """Return arguments for the image to start from, under this name, the strength and the mask; else the size."""
    if inputs.image is None:
        return inputs.size
    count = inputs.job.num_images
    masks = {} if inputs.mask is None else {"mask_image": [_to_mask(inputs.mask)] * count}
    return {image: [_to_pixels(inputs.image)] * count, "strength": inputs.job.strength, **masks}


def _to_pixels(image: Image.Image) -> torch.Tensor:
    """Return an image as (1, 3, height, width) from -1 to 1, which no pipeline scales to a size of its own."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1)[None]


def _to_mask(mask: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(mask, dtype=np.float32) / 255)[None, None]


def read_images(pixels: torch.Tensor) -> torch.Tensor:
    """Return what a pipeline makes, from -1 to 1 and beyond, as images of 0…1."""
    return (pixels / 2 + 0.5).clamp(0, 1)


def _negative_prompt(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:
    """Return the negative prompt where one of the job's stages is guided: all use the same embeddings."""
    del config
    cascade = inputs.job.cascade
    scale = max(inputs.guidance_scale, 0.0 if cascade is None else cascade.guidance_scale)
    return None if scale <= 1 else inputs.negative_prompt


def _read_t5(pipeline: Any, text: str, max_length: int, device: Any) -> None:
    del max_length
    pipeline.encode_prompt([text], do_classifier_free_guidance=False, device=device, **AS_IT_IS)


ENCODING = PromptEncoding(
    prompt_fields=("prompt",),
    option_fields=(),
    negative_option_fields=(),
    negative_prompt=_negative_prompt,
    results={"prompt_embeds": 0},
    constants={"do_classifier_free_guidance": False, **AS_IT_IS},
    read_t5=_read_t5,
)
