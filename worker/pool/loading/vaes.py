"""VAEs of the catalogue that are loaded beside one model: to take the place of its own, or to make previews."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch

from contracts.errors import CatalogueError
from contracts.jobs.receipt import Weights
from contracts.weights.vae_files import NEEDS_TINY, weights_of
from worker.checkpoints.files import ContentHasher
from worker.checkpoints.places import Places
from worker.checkpoints.vaes import load_vae


class LoadedVaes:
    """The VAEs beside one model, by their components' names: `vae:ID`, `preview_vae:ID`."""

    def __init__(self, own: Any, places: Places, hasher: ContentHasher) -> None:
        """`own`: the model's VAE; None: it has none."""
        self._own, self._places, self._hasher = own, places, hasher
        self._loaded: dict[str, tuple[Any, Weights]] = {}

    def load(self, name: str, place: Path, dtype: torch.dtype, add: Callable[[Any], None]) -> None:
        """Load one into host memory; nothing where it is loaded already.

        Args:
            add: told the module.

        Raises:
            CatalogueError: as `load_vae`; or one for previews is not a tiny one.
        """
        if name in self._loaded:
            return
        module = load_vae(place, self._own, dtype)
        if name.startswith("preview_") and not isinstance(module, diffusers.AutoencoderTiny):
            raise CatalogueError(f"it is an {type(module).__name__}; {NEEDS_TINY}")
        sha256 = self._hasher.hash(weights_of(place))
        self._loaded[name] = module, self._places.weights(name.removeprefix("preview_"), sha256)
        add(module)

    def module(self, id: str | None) -> Any:
        """The VAE with this id that makes images; None: the model's own, if it has one."""
        return self._own if id is None else self._loaded[f"vae:{id}"][0]

    def preview_module(self, id: str) -> Any:
        """The VAE with this id that makes previews."""
        return self._loaded[f"preview_vae:{id}"][0]

    def weights(self, names: Sequence[str]) -> dict[str, Weights]:
        """Those with these names, by the fields of a receipt: `vae`, `preview_vae`."""
        return {name.partition(":")[0]: self._loaded[name][1] for name in names}


def upcasts(vae: Any) -> bool:
    """Whether pipelines convert a VAE to float32 and back while they decode, so no job may sleep meanwhile."""
    return bool(vae.dtype == torch.float16 and vae.config.get("force_upcast"))
