"""LoRA files by their headers: family, key layout, ranks, and the models of the catalogue that a file matches.

Refuses files that no worker could use, with the reason. Checks names and shapes only: `finite.py` checks the
values, and `worker/adapters/reader.py` compares the file with the loaded model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from contracts.catalogue.cached import find_cached
from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.catalogue.families import FAMILIES, Family
from contracts.errors import AdapterRefused, CatalogueError
from contracts.hub.source import HubSource
from contracts.weights.header_text import NotSafetensors
from contracts.weights.lora_settings import ScaleSettings, read_settings
from contracts.weights.safetensors import Tensor, read_header

#: The family's UNet or transformer, for keys that do not say which.
_DENOISER = "denoiser"
_PARTS = {
    "unet": _DENOISER, "transformer": _DENOISER, "te": "text_encoder", "te1": "text_encoder",
    "te2": "text_encoder_2", "te3": "text_encoder_3",
}  # fmt: skip
#: Tensors beside the two matrices of a layer: kohya's alpha, DoRA's magnitudes, the second matrix's bias.
_COMPANION = re.compile(r"\.(alpha|lora_magnitude_vector(\.weight)?|lora_B\.bias)$")
_LAYOUTS: Sequence[tuple[str, re.Pattern[str]]] = (
    ("peft", re.compile(r"^(?P<layer>.+)\.lora_(?P<half>A|B)\.weight$")),
    ("kohya", re.compile(r"^(?P<layer>lora_.+)\.lora_(?P<half>down|up)\.weight$")),
    ("xlabs", re.compile(r"^(?P<layer>.+)_lora\d\.(?P<half>down|up)\.weight$")),
    ("diffusers", re.compile(r"^(?P<layer>.+)[._]lora(_linear_layer)?\.(?P<half>down|up)\.weight$")),
)
_COMPONENT = re.compile(r"^(unet|transformer|text_encoder(_[23])?)\.(?P<layer>.+)$")
_KOHYA = re.compile(r"^lora_(?P<part>unet|transformer|te[123]?)_(?P<layer>.+)$")
#: Maximum number of different ranks, which are shown and stored with each upload.
_MAX_RANKS = 1024
_UNSUPPORTED = ("hada_", "lokr_", "lora_mid", "dora_scale", ".diff", "oft_", "glora")


class AdapterFacts(BaseModel):
    """What a LoRA file's header says.

    Attributes:
        layout: naming scheme of its keys: `peft`, `kohya`, `diffusers` (old versions) or `xlabs`.
        ranks: all that occur, ascending.
        values: number of values in all tensors.
        dtype: of most tensors, as safetensors names it.
        changes_text: whether it changes a text encoder.
        models: ids of the catalogue's models that it matches; empty where no checkpoint of the family is here.
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
        layout: naming scheme of the key.
        is_own_name: whether the key uses the layer's name in the model.
        down, up: shapes of the two matrices.
    """

    name: str
    part: str
    layer: str
    layout: str
    is_own_name: bool
    down: tuple[int, ...]
    up: tuple[int, ...]


@dataclass(frozen=True)
class LoraFile:
    """What the header of a LoRA file says, checked without any model.

    Attributes:
        tensors: by name.
        layers: the layers that the file changes; at least one.
        settings: how its trainer scaled them, by component.
    """

    tensors: Mapping[str, Tensor]
    layers: Sequence[LoraLayer]
    settings: Mapping[str, ScaleSettings]


def read_lora(file: Path) -> LoraFile:
    """Read the header of a LoRA file.

    Raises:
        AdapterRefused: it is not a safetensors file, not a LoRA, or its settings are invalid.
    """
    try:
        header = read_header(file)
    except NotSafetensors as error:
        raise AdapterRefused(f"the file {error}") from None
    return LoraFile(header.tensors, read_layers(header.tensors), read_settings(header.metadata))


def read_facts(lora: LoraFile, catalogue: Catalogue) -> AdapterFacts:
    """Find the models that a LoRA matches.

    Raises:
        AdapterRefused: no worker here could use it.
    """
    family, models = _find_family(lora.layers, catalogue)
    return describe(lora, family.id, models)


def describe(lora: LoraFile, family: str, models: Sequence[str] = ()) -> AdapterFacts:
    """Describe a LoRA without comparing it with any model; the operator named its family."""
    dtypes = [tensor.dtype for tensor in lora.tensors.values()]
    return AdapterFacts(
        family=family,
        layout=lora.layers[0].layout,
        ranks=tuple(sorted({layer.down[0] for layer in lora.layers})),
        values=sum(tensor.values for tensor in lora.tensors.values()),
        dtype=max(dict.fromkeys(dtypes), key=dtypes.count),
        changes_text=any(layer.part != _DENOISER for layer in lora.layers),
        models=tuple(models),
    )


def read_layers(tensors: Mapping[str, Tensor]) -> list[LoraLayer]:
    """The layers that the file changes, each with the shapes of both matrices.

    Raises:
        AdapterRefused: a tensor is not part of a LoRA, or one of a layer's matrices is missing.
    """
    halves: dict[str, dict[str, Tensor]] = {}
    layouts: dict[str, str] = {}
    for key, tensor in tensors.items():
        if any(mark in key for mark in _UNSUPPORTED):
            raise AdapterRefused(
                f"{key[:120]!r} belongs to an unsupported kind of adapter; supported are LoRA and PEFT's DoRA"
            )
        if companion := _COMPANION.search(key):
            if companion[1] == "alpha" and tensor.values != 1:
                raise AdapterRefused(f"{key[:120]} must be one value, got the shape {list(tensor.shape)}")
            continue
        layout, match = _match(key)
        half = "down" if match["half"] in ("A", "down") else "up"
        halves.setdefault(match["layer"], {})[half] = tensor
        layouts[match["layer"]] = layout
    if not halves:
        raise AdapterRefused("the file contains no LoRA weights")
    layers = [_layer(name, layouts[name], pair) for name, pair in halves.items()]
    if len({layer.down[0] for layer in layers}) > _MAX_RANKS:
        raise AdapterRefused(f"its layers have more than {_MAX_RANKS} different ranks")
    return layers


def _match(key: str) -> tuple[str, re.Match[str]]:
    for layout, pattern in _LAYOUTS:
        if match := pattern.match(key):
            return layout, match
    raise AdapterRefused(f"{key[:120]!r} is not part of a LoRA")


def _layer(name: str, layout: str, pair: Mapping[str, Tensor]) -> LoraLayer:
    if pair.keys() != {"down", "up"}:
        raise AdapterRefused(f"one of the two matrices of {name[:120]} is missing")
    down, up = pair["down"].shape, pair["up"].shape
    if len(down) < 2 or len(up) != len(down) or down[0] != up[1]:
        raise AdapterRefused(f"the two matrices of {name[:120]} do not match: shapes {list(down)} and {list(up)}")
    if down[0] == 0:
        raise AdapterRefused(f"the two matrices of {name[:120]} have rank 0")
    part, layer, own = _DENOISER, name, False
    if match := _KOHYA.match(name):
        part, layer = _PARTS[match["part"]], match["layer"]
    elif match := _COMPONENT.match(name):
        part, layer, own = _PARTS.get(match[1], match[1]), match["layer"], layout == "peft"
    return LoraLayer(name, part, _flat(layer), layout, own, down, up)


def _flat(layer: str) -> str:
    """A layer's name as kohya writes it; diffusers' old names of attention layers lack the last index."""
    layer = re.sub(r"(^|\.)processor\.", r"\1", layer).removeprefix("text_model.").replace(".", "_")
    layer = layer.removeprefix("text_model_")
    return f"{layer}_0" if layer.endswith("_to_out") else layer


# -- matching models --------------------------------------------------------------------------------------


def _find_family(layers: Sequence[LoraLayer], catalogue: Catalogue) -> tuple[Family, list[str]]:
    """The file's family, and the models that it matches."""
    families = [family for family in FAMILIES.values() if _may_be(family, layers)]
    if not families:
        raise AdapterRefused(f"{layers[0].name[:120]} is not a layer of any known family ({', '.join(FAMILIES)})")
    unread, reasons = [], []
    for family in families:
        matching = []
        for model in (row for row in catalogue.models if row.family == family.id):
            shapes = _shapes_of(model, catalogue)
            if shapes is None:
                unread.append(family)
            elif reason := next(_mismatches(layers, shapes, model), None):
                reasons.append(reason)
            else:
                matching.append(model.id)
        if matching:
            return family, matching
    if unread:
        return unread[0], []
    raise AdapterRefused(
        next(iter(reasons), f"it is made for {families[0].id}, and the catalogue has no model of this family")
    )


def _may_be(family: Family, layers: Sequence[LoraLayer]) -> bool:
    """Whether all layers are named as this family's are."""
    parts = {layer.part for layer in layers} - {_DENOISER}
    names = (layer.layer for layer in layers if layer.part == _DENOISER)
    return parts <= set(family.lora_text_encoders) and all(
        re.match(family.denoiser_layers, name) for name in names
    )


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
        part = shapes.setdefault(_PARTS.get(file.parent.name, file.parent.name), {})
        part |= {
            _flat(key.removesuffix(".weight")): tensor.shape
            for key, tensor in tensors.items()
            if key.endswith(".weight") and len(tensor.shape) in (2, 4)
        }
    return shapes


def _mismatches(layers: Sequence[LoraLayer], shapes: _Shapes, model: ModelSpec) -> Iterator[str]:
    widths = {part: {sizes[1] for sizes in known.values()} for part, known in shapes.items()}
    for layer in layers:
        known = shapes.get(layer.part, {})
        shape = known.get(layer.layer)
        name, inputs, outputs = layer.name[:120], layer.down[1], layer.up[0]
        if shape is not None and (inputs, outputs) != (shape[1], shape[0]):
            has = f"{shape[1]} to {shape[0]}"
            yield f"{name} maps {inputs} to {outputs} channels, the layer of {model.id} maps {has}"
        elif shape is None and layer.is_own_name:
            yield f"{model.id} has no layer {name}"
        # The name may be the trainer's own, but a layer of this width must exist.
        elif shape is None and inputs not in widths.get(layer.part, ()):
            yield f"{name} has {inputs} input channels; no layer of {model.id} does"
