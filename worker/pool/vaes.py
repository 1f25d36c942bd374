"""VAEs of the catalogue that are loaded beside one model, to take the place of its own where a job names one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from contracts.jobs.receipt import Weights
from contracts.weights.vae_files import weights_of
from worker.checkpoints.files import ContentHasher
from worker.checkpoints.places import Places
from worker.checkpoints.vaes import load_vae


class LoadedVaes:
    """The VAEs beside one model, by their ids in the catalogue."""

    def __init__(self, own: Any, places: Places, hasher: ContentHasher) -> None:
        """`own`: the model's VAE."""
        self._own, self._places, self._hasher = own, places, hasher
        self._loaded: dict[str, tuple[Any, Weights]] = {}

    def load(self, id: str, place: Path, dtype: torch.dtype, add: Callable[[Any], None]) -> None:
        """Load one into host memory; nothing where it is loaded already.

        Args:
            add: told the module.

        Raises:
            CatalogueError: as `load_vae`.
        """
        if id in self._loaded:
            return
        module = load_vae(place, self._own, dtype)
        sha256 = self._hasher.hash(weights_of(place))
        self._loaded[id] = module, self._places.weights(f"vae:{id}", sha256)
        add(module)

    def module(self, id: str | None) -> Any:
        """The VAE with this id; None: the model's own."""
        return self._own if id is None else self._loaded[id][0]

    def weights(self, id: str | None) -> Weights | None:
        """The same, for receipts; None for the model's own."""
        return None if id is None else self._loaded[id][1]


def upcasts(vae: Any) -> bool:
    """Whether pipelines convert a VAE to float32 and back while they decode, so that none may wait there."""
    return bool(vae.dtype == torch.float16 and vae.config.get("force_upcast"))
