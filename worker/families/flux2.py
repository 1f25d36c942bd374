"""FLUX.2 dev: Mistral 3 reads the prompt, references stand behind the noise, guidance is an input.

Arguments are those of diffusers' `Flux2Pipeline`. Its tokenizer is the processor of a model that reads images,
which needs torchvision; its prompts are texts, for which the tokenizer in it is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from contracts.catalogue.families import Mode
from worker.families.flux2_parts import common_arguments, flux2_family
from worker.families.inputs import GenerationInputs


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of the pipeline."""
    images = {"image": list(inputs.references)} if inputs.references else {}
    return {**common_arguments(inputs), **images}


def _no_negative_prompt(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:  # noqa: ARG001
    return None


def _load_tokenizer(folder: Path) -> dict[str, Any]:
    return {"tokenizer": AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)}


FAMILY = flux2_family(
    id="flux2",
    pipelines={Mode.TXT2IMG: "Flux2Pipeline", Mode.EDIT: "Flux2Pipeline"},
    arguments=arguments,
    negative_prompt=_no_negative_prompt,
    load_others=_load_tokenizer,
)
