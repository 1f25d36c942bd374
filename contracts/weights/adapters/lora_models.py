"""Which family a LoRA file is made for, and which models of the catalogue it matches.

Compares the names and shapes of its layers with those of the checkpoints that are on this machine; values are read
by nobody here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

from contracts.catalogue.cached import find_cached
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES, Family
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import AdapterRefused, CatalogueError
from contracts.hub.source import HubSource
from contracts.weights.adapters.hypernetwork_files import has_hypernetworks
from contracts.weights.adapters.lora_files import AdapterFacts, LoraFile, describe
from contracts.weights.adapters.lora_layouts import DENOISER, PARTS, LoraLayer, flat_name
from contracts.weights.adapters.lycoris_layouts import cannot_join
from contracts.weights.adapters.original_names import layers_named
from contracts.weights.denoiser_files import CONTROL_INPUT, widened
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import read_header


def read_facts(lora: LoraFile, catalogue: Catalogue) -> AdapterFacts:
    """Find the models that a LoRA matches.

    Raises:
        AdapterRefused: no worker here could use it.
    """
    family, models = _find_family(lora, catalogue)
    return describe(lora, family.id, models)


def _find_family(lora: LoraFile, catalogue: Catalogue) -> tuple[Family, list[str]]:
    """The file's family, and the models that it matches."""
    families = [family for family in FAMILIES.values() if _may_be(family, lora)]
    if not families:
        raise AdapterRefused(_blame(lora.layers))
    unread, reasons = [], []
    for family in families:
        matching = []
        for model in (row for row in catalogue.models if row.family == family.id):
            shapes = _shapes_of(model, catalogue)
            if shapes is None:
                unread.append(family)
            elif reason := next(_mismatches(lora, shapes, model), None):
                reasons.append(reason)
            else:
                matching.append(model.id)
        if matching:
            return family, matching
    if unread:
        return _likeliest(unread, lora), []
    made_for = _likeliest(families, lora).id
    raise AdapterRefused(
        next(iter(reasons), f"it is made for {made_for}, and the catalogue has no model of this family")
    )


def _likeliest(families: Sequence[Family], lora: LoraFile) -> Family:
    """The family in whose published checkpoints prompts are as wide as in this file; else the first.

    Families with the same layers differ in that.
    """
    if lora.hypernetwork is not None:
        changed = lora.hypernetwork.depths.keys()
        return next((family for family in families if changed & family.context_widths), families[0])
    changes = [layer.change for layer in lora.layers if layer.layer.endswith(("attn2_to_k", "attn2_to_v"))]
    widths = {change.inputs or change.columns for change in changes} - {None}
    return next((family for family in families if widths and widths <= family.context_widths), families[0])


def _may_be(family: Family, lora: LoraFile) -> bool:
    """Whether all layers are named as this family's are; for a hypernetwork: whether it has any."""
    if lora.hypernetwork is not None:
        return has_hypernetworks(family)
    return all(_is_named_as(family, layer) for layer in lora.layers)


def _is_named_as(family: Family, layer: LoraLayer) -> bool:
    if layer.part != DENOISER:
        return layer.part in family.lora_text_encoders
    return bool(family.denoiser_layers) and re.match(family.denoiser_layers, layer.layer) is not None


def _blame(layers: Sequence[LoraLayer]) -> str:
    """Name the layer that is wrong: one that the family lacks to which most of them belong."""
    in_denoiser = [layer for layer in layers if layer.part == DENOISER]
    for family in FAMILIES.values():
        wrong = [layer for layer in layers if not _is_named_as(family, layer)]
        if in_denoiser and all(layer.part != DENOISER for layer in wrong):
            encoders = ", ".join(sorted(family.lora_text_encoders))
            return (
                f"{wrong[0].name[:120]} changes {wrong[0].part}; of the text encoders of {family.id}, LoRAs can "
                f"change {encoders}: train or extract it without that encoder"
            )
    fewest = min(([x for x in layers if not _is_named_as(one, x)] for one in FAMILIES.values()), key=len)
    return f"{fewest[0].name[:120]} is not a layer of any known family ({', '.join(FAMILIES)})"


#: Part -> layer -> the shape of its weight.
_Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]


def _shapes_of(model: ModelSpec, catalogue: Catalogue) -> _Shapes | None:
    """The layers of a checkpoint in diffusers layout, here or in the hub's cache; None for any other."""
    try:
        place = catalogue.place(model)
        cached = find_cached(catalogue, model) if isinstance(place, HubSource) else None
    except CatalogueError:
        return None
    folder = cached.folder if cached is not None and len(cached.files) > 1 else place
    if not isinstance(folder, Path) or not folder.is_dir():
        return None
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for file in sorted(folder.glob("*/*.safetensors")):
        try:
            tensors = read_header(file).tensors
        except (NotSafetensors, OSError):
            return None
        part = shapes.setdefault(PARTS.get(file.parent.name, file.parent.name), {})
        part |= {
            flat_name(key.removesuffix(".weight")): tensor.shape
            for key, tensor in tensors.items()
            if key.endswith(".weight") and len(tensor.shape) in (2, 4)
        }
    if model.control_lora is not None:
        shapes[DENOISER] = widened(shapes.get(DENOISER, {}), CONTROL_INPUT)
    return shapes


def _mismatches(lora: LoraFile, shapes: _Shapes, model: ModelSpec) -> Iterator[str]:
    if lora.hypernetwork is not None:
        yield from lora.hypernetwork.mismatches(shapes.get(DENOISER, {}), model.id)
    widths = {part: {sizes[1] for sizes in known.values()} for part, known in shapes.items()}
    for layer in lora.layers:
        known = shapes.get(layer.part, {})
        names = [layer.layer]
        if layer.layer not in known and not layer.is_own_name:
            names = layers_named(layer.layer, known) or ([] if layer.is_converted else names)
        found = [known[name] for name in names if name in known]
        if names and len(found) < len(names):
            yield f"{model.id} has no layer {layer.name[:120]}"
        elif found:
            yield from misfit(layer, found, model.id)
        # The name may be the trainer's own, but a layer of this width must exist.
        elif layer.change.inputs not in widths.get(layer.part, ()):
            yield f"{layer.name[:120]} has {layer.change.inputs} input channels; no layer of {model.id} does"


def misfit(layer: LoraLayer, shapes: Sequence[tuple[int, ...]], model: str) -> Iterator[str]:
    """Yield why a file's layer does not fit those of the model, which it may join along their outputs.

    Args:
        shapes: of the weights of the model's layers.
        model: what messages call it.
    """
    name, change = layer.name[:120], layer.change
    inputs, outputs, kernel = shapes[0][1], sum(shape[0] for shape in shapes), shapes[0][2:]
    if layer.widens_for_control(inputs):
        yield f"{layer.of_control} ({name} has {change.inputs} input channels, the layer of {model} {inputs})"
    elif change.outputs not in (None, outputs) or change.inputs not in (None, inputs):
        given = f"{change.inputs or 'any'} to {change.outputs or 'any'}"
        yield f"{name} maps {given} channels, the layer of {model} maps {inputs} to {outputs}"
    elif change.kernel is not None and change.kernel != kernel and {*change.kernel, *kernel} != {1}:
        yield f"{name} has a kernel of {list(change.kernel)}, the layer of {model} {list(kernel)}"
    elif change.columns not in (None, inputs * prod(kernel)):
        columns = inputs * prod(kernel)
        yield f"{name} changes {change.columns} values for each output, the layer of {model} has {columns}"
    elif len(shapes) > 1 and (reason := cannot_join(change, [shape[0] for shape in shapes])):
        yield f"{name} cannot be applied to {model}, whose layers are split: {reason}"
