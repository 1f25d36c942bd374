"""Qwen-Image-Edit-Plus (2509, 2511): an edit of several references together.

Arguments are those of diffusers' `QwenImageEditPlusPipeline`, whose images are the references of one prompt. Its
text encoder sees them smaller than its transformer does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as pipeline
from PIL import Image

from contracts.catalogue.families import Mode
from worker.families.inputs import GenerationInputs
from worker.families.qwen_parts import edit_encoding, guidance, qwen_edit_family, scaled


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of the pipeline."""
    return {
        **inputs.size,
        "image": list(inputs.references),
        "num_inference_steps": inputs.job.num_inference_steps,
        # The pipeline takes one prompt, for all images.
        "num_images_per_prompt": inputs.job.num_images,
        **guidance(inputs),
    }


def _seen(inputs: GenerationInputs) -> Sequence[Image.Image]:
    area = pipeline.CONDITION_IMAGE_SIZE
    return [scaled(image, pipeline.calculate_dimensions, area) for image in inputs.references]


def _only_one(rows: Sequence[Any]) -> Any:
    return rows[0]


FAMILY = qwen_edit_family(
    id="qwen-image-edit-plus",
    pipelines={Mode.EDIT: "QwenImageEditPlusPipeline"},
    arguments=arguments,
    encoding=edit_encoding(_seen, join=_only_one),
)
