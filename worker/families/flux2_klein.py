"""FLUX.2 klein: Qwen3 reads the prompt, and guidance is a pass without it; a distilled one needs none.

Arguments are those of diffusers' `Flux2KleinPipeline` and `Flux2KleinInpaintPipeline`. The pipelines take no text
of a negative prompt, but its embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families.flux2_parts import common_arguments, flux2_family
from worker.families.inputs import GenerationInputs


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a klein pipeline."""
    return {**common_arguments(inputs), **_BY_MODE[inputs.job.mode](inputs)}


def _txt2img(inputs: GenerationInputs) -> dict[str, Any]:  # noqa: ARG001
    return {}


def _edit(inputs: GenerationInputs) -> dict[str, Any]:
    return {"image": list(inputs.references)}


def _inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    # The class for masks has the size of its image; it scales a large one down, but not those in a list.
    return {**inputs.start, **inputs.inpaint_mask}


def _edit_inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**_inpaint(inputs), "image_reference": list(inputs.references)}


def _negative_prompt(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:
    return None if config["is_distilled"] or inputs.guidance_scale <= 1 else inputs.negative_prompt


_BY_MODE: dict[Mode, Callable[[GenerationInputs], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.INPAINT: _inpaint,
    Mode.EDIT: _edit,
    Mode.EDIT_INPAINT: _edit_inpaint,
}

FAMILY = flux2_family(
    id="flux2-klein",
    pipelines={
        Mode.TXT2IMG: "Flux2KleinPipeline",
        Mode.INPAINT: "Flux2KleinInpaintPipeline",
        Mode.EDIT: "Flux2KleinPipeline",
        Mode.EDIT_INPAINT: "Flux2KleinInpaintPipeline",
    },
    arguments=arguments,
    negative_prompt=_negative_prompt,
)
