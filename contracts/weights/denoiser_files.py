"""The models whose denoiser an uploaded file suits, by the headers of the denoisers' files. Loads nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from contracts.catalogue.cached import find_cached
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.family import Family
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import AdapterRefused, CatalogueError
from contracts.hub.source import HubSource
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import read_header

#: Folders of a checkpoint, of which it has one.
_PARTS = ("unet", "transformer")
#: Name -> shape of tensors.
Layers = Mapping[str, tuple[int, ...]]
#: The layer of a FLUX.1 transformer that a Control LoRA gives twice its inputs.
CONTROL_INPUT = "x_embedder"


def read_denoiser(model: ModelSpec, catalogue: Catalogue) -> Layers | None:
    """Return name -> shape of each of its tensors; None where they cannot be read on this machine.

    Of a model with a Control LoRA, those that it has once that is merged.
    """
    try:
        place = catalogue.place(model)
        cached = find_cached(catalogue, model) if isinstance(place, HubSource) else None
        folder = cached.folder if cached is not None else place
        if not isinstance(folder, Path) or not folder.is_dir():
            return None
        found: dict[str, tuple[int, ...]] = {}
        files = [file for part in _PARTS for file in sorted((folder / part).glob("*.safetensors"))]
        for file in files:
            found |= {name: tensor.shape for name, tensor in read_header(file).tensors.items()}
    except (CatalogueError, NotSafetensors, OSError):
        return None
    if model.control_lora is not None:
        found = widened(found, f"{CONTROL_INPUT}.weight")
    return found or None


def widened(shapes: Layers, name: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes with twice the inputs in the weight of this name, if there is one."""
    outputs, *inputs = shapes.get(name, ())[:2] or (0,)
    return {**shapes, name: (outputs, 2 * inputs[0])} if inputs else dict(shapes)


def find_suited_models(
    families: Iterable[Family],
    catalogue: Catalogue,
    *,
    may_suit: Callable[[Family], bool],
    misfit: Callable[[Layers, ModelSpec], str | None],
    ending: str = "",
    no_family: str,
) -> tuple[str, list[str]]:
    """Find the family that a file is for, and those of its models that it suits.

    Args:
        families: in the order in which they are tried.
        may_suit: whether it could be for a family none of whose models can be compared on this machine.
        misfit: what of a model's layers is not as the file needs it; None where it suits.
        ending: of the names of the layers that are compared; a model without any cannot be compared.
        no_family: the reason where the catalogue has no model of these families.

    Returns:
        Without any model where none can be compared on this machine.

    Raises:
        AdapterRefused: it suits no model here.
    """
    reasons: list[str] = []
    unread: list[str] = []
    for family in families:
        suited = []
        for model in (row for row in catalogue.models if row.family == family.id):
            found = read_denoiser(model, catalogue) or {}
            layers = {name: shape for name, shape in found.items() if name.endswith(ending)}
            if not layers:
                unread += [family.id] * may_suit(family)
            elif reason := misfit(layers, model):
                reasons.append(reason)
            else:
                suited.append(model.id)
        if suited:
            return family.id, suited
    if unread:
        return unread[0], []
    raise AdapterRefused(next(iter(reasons), no_family))
