"""Sana-Sprint: Sana distilled for one to four steps, with guidance as an input of the transformer.

Arguments are those of diffusers' `SanaSprintPipeline` and `SanaSprintImg2ImgPipeline`. No negative prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families.inputs import GenerationInputs
from worker.families.sana_parts import common_arguments, sana_encoding, sana_family

#: The time between two steps; the pipelines refuse it for any other number of them.
_BETWEEN_TWO_STEPS = 1.3


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a Sana-Sprint pipeline."""
    between = _BETWEEN_TWO_STEPS if inputs.job.num_inference_steps == 2 else None
    start = inputs.start if inputs.job.mode is Mode.IMG2IMG else {}
    return {**common_arguments(inputs), "intermediate_timesteps": between, **start}


def _no_negative_prompt(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:
    del inputs, config
    return None


FAMILY = sana_family(
    id="sana-sprint",
    pipelines={Mode.TXT2IMG: "SanaSprintPipeline", Mode.IMG2IMG: "SanaSprintImg2ImgPipeline"},
    arguments=arguments,
    encoding=sana_encoding(_no_negative_prompt, {}),
    embeds_guidance=True,
    controlnet="",
)
