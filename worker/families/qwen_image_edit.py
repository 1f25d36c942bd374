"""Qwen-Image-Edit: Qwen-Image whose text encoder sees one reference image, which the transformer is given, too.

Arguments are those of diffusers' `QwenImageEditPipeline` and `QwenImageEditInpaintPipeline`. The reference of an
inpaint is its image. Reads references as the pipelines do, which scale them to a megapixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit
from PIL import Image

from contracts.catalogue.families import Mode
from worker.families.inputs import GenerationInputs
from worker.families.qwen_parts import edit_encoding, guidance, qwen_edit_family, scaled
from worker.runtime.async_copies import rebound

#: What the pipeline scales a reference to, in pixels.
_AREA = 1024 * 1024


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a pipeline for edits."""
    steps = {"num_inference_steps": inputs.job.num_inference_steps}
    return {**inputs.size, **steps, **guidance(inputs), **_BY_MODE[inputs.job.mode](inputs)}


def _edit(inputs: GenerationInputs) -> dict[str, Any]:
    return {"image": inputs.references[0]}


def _inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.start, **inputs.inpaint_mask}


def _seen(inputs: GenerationInputs) -> Sequence[Image.Image]:
    """What the text encoder sees: what the transformer is given."""
    if inputs.job.mode is Mode.INPAINT:
        return [] if inputs.image is None else [inputs.image]
    return [scaled(image, pipeline_qwenimage_edit.calculate_dimensions, _AREA) for image in inputs.references]


def _patch(pipeline: Any) -> None:
    if type(pipeline).__name__ == "QwenImageEditInpaintPipeline":
        pipeline_class: Any = type(pipeline)
        pipeline.__class__ = _of_any_size(pipeline_class)


@cache
def _of_any_size(pipeline_class: Any) -> Any:
    """The pipeline class without its own choice of a size.

    diffusers' `QwenImageEditInpaintPipeline` (0.42) makes images of about a megapixel, whatever width and height
    it is called with; `test_a_job_equals_a_direct_call_of_the_pipeline_bit_for_bit` fails when that changes.
    """

    def call(self: Any, *, width: int, height: int, **others: Any) -> Any:
        own = rebound(
            pipeline_class.__call__.__wrapped__, calculate_dimensions=lambda _area, _ratio: (width, height, None)
        )
        return own(self, **others)

    return type(pipeline_class.__name__, (pipeline_class,), {"__call__": torch.no_grad()(call)})


_BY_MODE: dict[Mode, Callable[[GenerationInputs], dict[str, Any]]] = {Mode.EDIT: _edit, Mode.INPAINT: _inpaint}

FAMILY = qwen_edit_family(
    id="qwen-image-edit",
    pipelines={Mode.EDIT: "QwenImageEditPipeline", Mode.INPAINT: "QwenImageEditInpaintPipeline"},
    arguments=arguments,
    encoding=edit_encoding(_seen),
    patch=_patch,
)
