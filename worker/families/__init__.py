"""How each family maps to diffusers: classes and arguments as data and small functions, one file per family.

What a family can do is in `contracts/catalogue/families.py`. A file is named as its family's id, with `_` for `-`,
and has it as `FAMILY`; checkpoints of a family that were trained for other tasks are families of their own here.
No family imports another: what several share is in `inputs.py` (inputs of one pipeline call), `prompts.py` (how
prompts become embeddings), `packed_latents.py` (latents that are packed as FLUX.1's), `deterministic_vae.py` (a
VAE for pipelines that draw from the global generator), and in the files that end in `_parts.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from contracts.catalogue.families import Mode
from contracts.requests.parameters import JobParameters
from worker.families.inputs import GenerationInputs
from worker.families.prompts import PromptEncoding


def _needs_no_patch(pipeline: Any) -> None:
    pass


def _already_unpacked(pipeline: Any, latents: Any, size: tuple[int, int]) -> Any:  # noqa: ARG001
    return latents


def _no_others(folder: Path) -> dict[str, Any]:  # noqa: ARG001
    return {}


def _is_whole(controlnet: Any, denoiser: Any) -> None:
    pass


def _as_they_are(images: Any) -> Any:
    return images


def _can_run(pipeline: Any, job: JobParameters) -> str | None:  # noqa: ARG001
    return None


def _fits(components: Mapping[str, Any]) -> str | None:  # noqa: ARG001
    return None


@dataclass(frozen=True)
class Unions:
    """Unions of several kinds of control that diffusers runs by pipelines of their own.

    Attributes:
        controlnet: class of one.
        pipelines: mode -> pipeline class.
    """

    controlnet: str
    pipelines: Mapping[Mode, str]


@dataclass(frozen=True)
class DiffusersFamily:
    """One family's classes and arguments in diffusers.

    Attributes:
        id: of its row in `contracts/catalogue/families.py`.
        pipelines: mode -> pipeline class; the first is the one that holds a loaded checkpoint's components.
        controlnet: class of a ControlNet.
        multi_controlnet: class that combines several; both are empty where it has none.
        unions: of ControlNets that are of another class; None where it has none.
        denoiser: name of the component that runs at every step.
        denoiser_class: its class.
        repeated_blocks: classes of the blocks that it repeats; these are compiled.
        absent: components that the pipeline class takes, and its checkpoints do not have.
        packages: that must be installed for it beside those of every worker.
        t5: name of the T5 encoder's component; None if there is none.
        vae: name of the VAE's component; None: the denoiser works on pixels.
        encoding: how prompts become embeddings; None where its models read none.
        arguments: all arguments of a pipeline call but embeddings, generators and callback.
        patch: works round a pipeline class, on a freshly made pipeline.
        prepare: works round a class of the components, on the pipeline that has just loaded them.
        misfit: components -> why their configurations do not make this family together; None: they do.
        refusal: (pipeline, job) -> why its checkpoint cannot run a job, where the API knew too little of it to say
            so; None: it can.
        guides_in_two_calls: whether a guided step calls the denoiser with the prompt, and then without it; else
            both are rows of one call.
        complete_controlnet: (ControlNet, denoiser) -> gives a ControlNet the denoiser's layers that it runs.
        load_others: checkpoint's folder -> components without weights that its own class cannot load here.
        unpack_latents: (pipeline, latents, (width, height) in pixels) -> latents (n, channels, height, width).
        read_images: what a pipeline returns where it is asked for tensors -> images (n, 3, height, width) of 0…1.
    """

    id: str
    pipelines: Mapping[Mode, str]
    controlnet: str
    multi_controlnet: str
    denoiser: str
    denoiser_class: str
    repeated_blocks: tuple[str, ...]
    t5: str | None
    encoding: PromptEncoding | None
    arguments: Callable[[GenerationInputs], dict[str, Any]]
    patch: Callable[[Any], None] = _needs_no_patch
    prepare: Callable[[Any], None] = _needs_no_patch
    misfit: Callable[[Mapping[str, Any]], str | None] = _fits
    refusal: Callable[[Any, JobParameters], str | None] = _can_run
    unions: Unions | None = None
    guides_in_two_calls: bool = False
    complete_controlnet: Callable[[Any, Any], None] = _is_whole
    load_others: Callable[[Path], dict[str, Any]] = _no_others
    unpack_latents: Callable[[Any, Any, tuple[int, int]], Any] = _already_unpacked
    read_images: Callable[[Any], Any] = _as_they_are
    vae: str | None = "vae"
    absent: frozenset[str] = frozenset()
    packages: tuple[str, ...] = ()

    @property
    def prompt_encoding(self) -> PromptEncoding:
        """Its encoding, of a family whose models read prompts; raises ValueError for others."""
        if self.encoding is None:
            raise ValueError(f"models of family {self.id} read no prompts")
        return self.encoding

    @property
    def controlnet_classes(self) -> tuple[str, ...]:
        """Classes of its ControlNets."""
        return (self.controlnet, *([] if self.unions is None else [self.unions.controlnet]))

    @property
    def shares_layers(self) -> bool:
        """Whether its ControlNets run layers of the denoiser."""
        return self.complete_controlnet is not _is_whole

    @property
    def checkpoint_class(self) -> str:
        """The pipeline class that holds a checkpoint's components, and that its `model_index.json` names."""
        return next(iter(self.pipelines.values()))


def first_difference(pairs: Mapping[str, tuple[Any, Any]]) -> str | None:
    """Return the first of `what: (found, needed)` that differ, as the end of a sentence; None: all agree."""
    for what, (found, needed) in pairs.items():
        if found != needed:
            return f"{what} is {found}, but must be {needed}"
    return None


def transformer_misfit(components: Mapping[str, Any], *, text: str, patch: int = 1) -> str | None:
    """Return why a transformer does not fit its VAE or, where there is one, its text encoder; None: it fits both.

    Args:
        text: entry of the transformer's configuration with the width of the text.
        patch: latents that the transformer reads as one, of each channel.
    """
    transformer, vae = components["transformer"].config, components["vae"].config
    pairs: dict[str, tuple[Any, Any]] = {
        "in_channels of the transformer": (transformer.in_channels, patch * vae.latent_channels)
    }
    if components.get("text_encoder") is not None:
        width = components["text_encoder"].config.hidden_size
        pairs[f"{text} of the transformer"] = (getattr(transformer, text), width)
    return first_difference(pairs)


def get_family(name: str) -> DiffusersFamily:
    """Return the family with this id, which a file of its name in this folder describes, with `_` for `-`."""
    module = importlib.import_module(f"worker.families.{name.replace('-', '_')}")
    return cast("DiffusersFamily", module.FAMILY)
