"""What a checkpoint in one file holds, by its keys. Loads no weights.

Keys are those of the original layouts that diffusers' single-file loader reads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import fetch_diffusers_config

from contracts.errors import CatalogueError
from contracts.hub.source import GGUF, HubSource
from contracts.weights.checkpoint_files import AnyTensor, read_tensors
from contracts.weights.formats.header_text import UnreadableWeights
from worker.families import DiffusersFamily

#: Prefixes of text encoders' keys.
_ENCODERS = ("conditioner.", "cond_stage_model.", "text_encoders.")
_T5 = "text_encoders.t5xxl."
_VAE = ("first_stage_model.", "vae.")


class SingleFile:
    """A file that holds a denoiser and, where it is a `.safetensors` file, perhaps the rest of a checkpoint.

    Attributes:
        is_gguf: whether it is a `.gguf` file instead, whose weights may be packed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_gguf = path.suffix == GGUF

    @cached_property
    def tensors(self) -> Mapping[str, AnyTensor]:
        """Its tensors by name; raises CatalogueError where the file cannot be used."""
        try:
            return read_tensors(self.path)
        except UnreadableWeights as error:
            raise CatalogueError(f"{self.path.name} {error}") from None

    @property
    def keys(self) -> Collection[str]:
        """Names of its tensors."""
        return self.tensors.keys()

    @property
    def has_encoders(self) -> bool:
        """Whether it holds text encoders."""
        return any(key.startswith(_ENCODERS) for key in self.tensors)

    @property
    def has_clip(self) -> bool:
        """Whether it holds text encoders beside a T5."""
        return any(key.startswith(_ENCODERS) and not key.startswith(_T5) for key in self.tensors)

    def holds(self, name: str, family: DiffusersFamily) -> bool:
        """Whether it holds a component; one that it lacks comes from `config`."""
        if name == "vae":
            return self.has_vae
        if name == family.t5:
            return self.has_t5
        return name == family.denoiser or (name.startswith("text_encoder") and self.has_clip)

    @property
    def has_vae(self) -> bool:
        """Whether it holds a VAE."""
        return any(key.startswith(_VAE) for key in self.tensors)

    @property
    def has_t5(self) -> bool:
        """Whether it holds a T5."""
        return any(key.startswith(_T5) for key in self.tensors)

    def usual_repository(self) -> HubSource:
        """The repository on the hub whose configurations diffusers takes for such a file."""
        tensors = {key: torch.empty(one.shape, device="meta") for key, one in self.tensors.items()}
        return HubSource(fetch_diffusers_config(tensors)["pretrained_model_name_or_path"])
