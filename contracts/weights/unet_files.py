"""The layers of a model's UNet by the headers of its files, for files that must fit them. Loads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from contracts.catalogue.cached import find_cached
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.hub.source import HubSource
from contracts.weights.header_text import NotSafetensors
from contracts.weights.safetensors import read_header


def read_unet(model: ModelSpec, catalogue: Catalogue) -> Mapping[str, tuple[int, ...]] | None:
    """Return name -> shape of each of its tensors; None where they cannot be read on this machine."""
    try:
        place = catalogue.place(model)
        cached = find_cached(catalogue, model) if isinstance(place, HubSource) else None
        folder = cached.folder if cached is not None else place
        if not isinstance(folder, Path) or not folder.is_dir():
            return None
        found: dict[str, tuple[int, ...]] = {}
        for file in sorted((folder / "unet").glob("*.safetensors")):
            found |= {name: tensor.shape for name, tensor in read_header(file).tensors.items()}
    except (CatalogueError, NotSafetensors, OSError):
        return None
    return found or None
