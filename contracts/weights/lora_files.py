"""What an adapter's file says of itself, from its header: family, layout, ranks, and which models it fits.

Refuses by name what no worker could use. Knows nothing of torch: whether the layers really take it is held against
the loaded model once more (`worker/lora_files.py`). `values.py` looks at what the header does not tell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.catalogue.families import FAMILIES, Family
from contracts.errors import CatalogueError, DarkroomError
from contracts.weights.safetensors import NotSafetensors, Tensor, read_header

#: Stands for the family's UNet or transformer in names that do not say which it is.
_DENOISER = "denoiser"
_PARTS = {
    "unet": _DENOISER, "transformer": _DENOISER, "te": "text_encoder", "te1": "text_encoder",
    "te2": "text_encoder_2", "te3": "text_encoder_3",
}  # fmt: skip
#: Beside the two halves of a layer's change: kohya's scale, DoRA's lengths.
_COMPANION = re.compile(r"\.(alpha|lora_magnitude_vector(\.weight)?|lora_B\.bias)$")
_LAYOUTS: Sequence[tuple[str, re.Pattern[str]]] = (
    ("peft", re.compile(r"^(?P<layer>.+)\.lora_(?P<half>A|B)\.weight$")),
    ("kohya", re.compile(r"^(?P<layer>lora_.+)\.lora_(?P<half>down|up)\.weight$")),
    ("xlabs", re.compile(r"^(?P<layer>.+)_lora\d\.(?P<half>down|up)\.weight$")),
    ("diffusers", re.compile(r"^(?P<layer>.+)[._]lora(_linear_layer)?\.(?P<half>down|up)\.weight$")),
)
_COMPONENT = re.compile(r"^(unet|transformer|text_encoder(_[23])?)\.(?P<layer>.+)$")
_KOHYA = re.compile(r"^lora_(?P<part>unet|transformer|te[123]?)_(?P<layer>.+)$")
_UNSUPPORTED = ("hada_", "lokr_", "lora_mid", "dora_scale", ".diff", "oft_", "glora")


class AdapterRefused(DarkroomError):
    """A file that is no adapter for any model here; the message says why."""


class AdapterFacts(BaseModel):
    """What is known of an adapter from its file.

    Attributes:
        layout: whose names it has: `peft`, `kohya`, `diffusers` (older ones) or `xlabs`.
        ranks: each that occurs, ascending.
        values: in all tensors together.
        dtype: of most of its tensors, as safetensors names it.
        changes_text: whether it changes a text encoder.
        models: those of the catalogue whose layers it fits; empty where none can be looked into here.
    """

    model_config = ConfigDict(frozen=True)

    family: str
    layout: str
    ranks: tuple[int, ...]
    values: int
    dtype: str
    changes_text: bool
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoraLayer:
    """One layer that a file changes.

    Attributes:
        part: `denoiser`, `text_encoder`, …
        layer: its name with underscores for dots.
        layout: whose names the file has.
        is_own_name: whether the name is the one that the layer has in the model.
    """

    name: str
    part: str
    layer: str
    layout: str
    is_own_name: bool
    down: tuple[int, ...]
    up: tuple[int, ...]


def read_facts(file: Path, catalogue: Catalogue) -> AdapterFacts:
    """Read an adapter's header and find the models that it is for.

    Raises:
        AdapterRefused: no worker here could use it.
    """
    tensors = read_tensors(file)
    changes = read_changes(tensors)
    family, models = _find_family(changes, catalogue)
    return _facts(tensors, changes, family.id, models)


def describe(file: Path, family: str) -> AdapterFacts:
    """As `read_facts`, for an adapter whose family the operator named: it is held against no model.

    Raises:
        AdapterRefused: the file is no adapter.
    """
    tensors = read_tensors(file)
    return _facts(tensors, read_changes(tensors), family)


def _facts(
    tensors: Mapping[str, Tensor], changes: Sequence[LoraLayer], family: str, models: Sequence[str] = ()
) -> AdapterFacts:
    dtypes = [tensor.dtype for tensor in tensors.values()]
    return AdapterFacts(
        family=family,
        layout=changes[0].layout,
        ranks=tuple(sorted({change.down[0] for change in changes})),
        values=sum(math.prod(tensor.shape) for tensor in tensors.values()),
        dtype=max(dict.fromkeys(dtypes), key=dtypes.count),
        changes_text=any(change.part != _DENOISER for change in changes),
        models=tuple(models),
    )


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises AdapterRefused for any other."""
    try:
        return read_header(file)
    except NotSafetensors as error:
        raise AdapterRefused(f"the file {error}") from None


def read_changes(tensors: Mapping[str, Tensor]) -> list[LoraLayer]:
    """The layers that the file changes, each with the shapes of both halves.

    Raises:
        AdapterRefused: it holds something else, or half a layer.
    """
    halves: dict[str, dict[str, Tensor]] = {}
    layouts: dict[str, str] = {}
    for key, tensor in tensors.items():
        if any(mark in key for mark in _UNSUPPORTED):
            raise AdapterRefused(
                f"{key[:120]!r} is of a kind that is not supported; this takes LoRA and PEFT's DoRA"
            )
        if _COMPANION.search(key):
            continue
        layout, match = _match(key)
        half = "down" if match["half"] in ("A", "down") else "up"
        halves.setdefault(match["layer"], {})[half] = tensor
        layouts[match["layer"]] = layout
    if not halves:
        raise AdapterRefused("the file holds no LoRA weights")
    return [_change(name, layouts[name], both) for name, both in halves.items()]


def _match(key: str) -> tuple[str, re.Match[str]]:
    for layout, pattern in _LAYOUTS:
        if match := pattern.match(key):
            return layout, match
    raise AdapterRefused(f"{key[:120]!r} is no part of a LoRA")


def _change(name: str, layout: str, both: Mapping[str, Tensor]) -> LoraLayer:
    if both.keys() != {"down", "up"}:
        raise AdapterRefused(f"{name[:120]} has only one of its two halves")
    down, up = both["down"].shape, both["up"].shape
    if len(down) < 2 or len(up) != len(down) or down[0] != up[1]:
        raise AdapterRefused(f"the two halves of {name[:120]} do not fit together")
    part, layer, own = _DENOISER, name, False
    if match := _KOHYA.match(name):
        part, layer = _PARTS[match["part"]], match["layer"]
    elif match := _COMPONENT.match(name):
        part, layer, own = _PARTS.get(match[1], match[1]), match["layer"], layout == "peft"
    return LoraLayer(name, part, _flat(layer), layout, own, down, up)


def _flat(layer: str) -> str:
    """A layer's name as kohya writes it; older names of attention layers end otherwise."""
    layer = re.sub(r"(^|\.)processor\.", r"\1", layer).removeprefix("text_model.").replace(".", "_")
    layer = layer.removeprefix("text_model_")
    return f"{layer}_0" if layer.endswith("_to_out") else layer


# -- whom it fits -----------------------------------------------------------------------------------------


def _find_family(changes: Sequence[LoraLayer], catalogue: Catalogue) -> tuple[Family, list[str]]:
    families = [family for family in FAMILIES.values() if _may_be(family, changes)]
    if not families:
        named = ", ".join(FAMILIES)
        raise AdapterRefused(f"{changes[0].name[:120]} is no layer of a family that is known here ({named})")
    unread, reasons = [], []
    for family in families:
        fitting = []
        for model in (row for row in catalogue.models if row.family == family.id):
            layers = _layers_of(model, catalogue)
            if layers is None:
                unread.append(family)
            elif reason := next(_misfits(changes, layers, model), None):
                reasons.append(reason)
            else:
                fitting.append(model.id)
        if fitting:
            return family, fitting
    if unread:
        return unread[0], []
    raise AdapterRefused(next(iter(reasons), f"it is made for {families[0].id}, and there is no such model here"))


def _may_be(family: Family, changes: Sequence[LoraLayer]) -> bool:
    """Whether all layers have names as this family's have."""
    parts = {change.part for change in changes} - {_DENOISER}
    layers = (change.layer for change in changes if change.part == _DENOISER)
    return parts <= set(family.lora_text_encoders) and all(
        re.match(family.denoiser_layers, layer) for layer in layers
    )


#: Part -> layer -> the shape of its weight.
_Layers = Mapping[str, Mapping[str, tuple[int, ...]]]


def _layers_of(model: ModelSpec, catalogue: Catalogue) -> _Layers | None:
    """The layers of a checkpoint in diffusers layout on this machine; None for any other."""
    try:
        place = catalogue.locate(model.source)
    except CatalogueError:
        return None
    if not isinstance(place, Path) or not place.is_dir():
        return None
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for file in sorted(place.glob("*/*.safetensors")):
        try:
            tensors = read_header(file)
        except (NotSafetensors, OSError):
            return None
        part = layers.setdefault(_PARTS.get(file.parent.name, file.parent.name), {})
        part |= {
            _flat(key.removesuffix(".weight")): tensor.shape
            for key, tensor in tensors.items()
            if key.endswith(".weight") and len(tensor.shape) in (2, 4)
        }
    return layers


def _misfits(changes: Sequence[LoraLayer], layers: _Layers, model: ModelSpec) -> Iterator[str]:
    for change in changes:
        known = layers.get(change.part, {})
        shape = known.get(change.layer)
        if shape is not None and (change.down[1], change.up[0]) != (shape[1], shape[0]):
            made_for, has = f"{change.down[1]} → {change.up[0]}", f"{shape[1]} → {shape[0]}"
            yield f"{change.name[:120]} is made for {made_for} channels, and the layer of {model.id} has {has}"
        elif shape is None and change.is_own_name:
            yield f"{model.id} has no layer {change.name[:120]}"
        # Other names may be a trainer's own; the widths must occur all the same.
        elif shape is None and change.down[1] not in {sides[1] for sides in known.values()}:
            yield f"{change.name[:120]} is made for {change.down[1]} channels; no layer of {model.id} has so many"
