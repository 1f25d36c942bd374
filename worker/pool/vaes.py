"""VAEs of the catalogue that are loaded beside one model, to take the place of its own where a job names one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from contracts.jobs.receipt import Weights
from contracts.weights.vae_files import WEIGHTS
from worker.checkpoints import loader as checkpoints
from worker.checkpoints.files import ContentHasher


class LoadedVaes:
    """The VAEs beside one model, by their ids in the catalogue."""

    def __init__(self, own: Any, family: str, hasher: ContentHasher) -> None:
        """`own`: the model's VAE."""
        self._own, self._family, self._hasher = own, family, hasher
        self._loaded: dict[str, tuple[Any, Weights]] = {}

    def load(self, id: str, folder: Path, dtype: torch.dtype, add: Callable[[Any], None]) -> None:
        """Load one into host memory; nothing where it is loaded already.

        Args:
            add: told the module.

        Raises:
            CatalogueError: as `worker.checkpoints.loader.load_vae`.
        """
        if id in self._loaded:
            return
        module = checkpoints.load_vae(folder, self._own, dtype)
        sha256 = self._hasher.hash(folder / WEIGHTS)
        self._loaded[id] = module, Weights(id=id, sha256=sha256, family=self._family)
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
