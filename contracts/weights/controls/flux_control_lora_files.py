"""FLUX Control LoRAs: what makes a transformer with a control image's channels of a usual FLUX.1 one, in one file.

As Black Forest Labs publish them (`FLUX.1-Canny-dev-lora`, `FLUX.1-Depth-dev-lora`), under the names of the
original release, or under diffusers' own. A LoRA gives `x_embedder` twice its inputs; other layers have a LoRA,
with a bias or without, and norms of queries and keys are replaced. Knows names and shapes, and no values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.weights.adapters.lora_layouts import DENOISER, FLOATS, flat_name, place_of
from contracts.weights.adapters.original_names import layers_named
from contracts.weights.denoiser_files import CONTROL_INPUT, Layers, read_denoiser
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import Tensor, read_header

#: Layers outside of the blocks, as the original release names them, flat.
_OUTSIDE = {
    "img_in": CONTROL_INPUT, "txt_in": "context_embedder",
    "time_in_in_layer": "time_text_embed_timestep_embedder_linear_1",
    "time_in_out_layer": "time_text_embed_timestep_embedder_linear_2",
    "vector_in_in_layer": "time_text_embed_text_embedder_linear_1",
    "vector_in_out_layer": "time_text_embed_text_embedder_linear_2",
    "guidance_in_in_layer": "time_text_embed_guidance_embedder_linear_1",
    "guidance_in_out_layer": "time_text_embed_guidance_embedder_linear_2",
    "final_layer_linear": "proj_out", "final_layer_adaLN_modulation_1": "norm_out_linear",
}  # fmt: skip
#: Whose outputs are shift and scale in the original release, and scale and shift in diffusers.
_SWAPPED = "final_layer_adaLN_modulation_1"
_NORM = re.compile(
    r"^((?P<block>double)_blocks_(?P<number>\d+)_(?P<stream>img|txt)_attn|single_blocks_(?P<single>\d+))"
    r"_norm_(?P<of>query|key)_norm$"
)
_LORA = re.compile(r"^(?P<layer>.+)\.(?P<part>lora_[AB]\.weight|lora_(down|up)\.weight|lora_B\.bias|alpha)$")
_PARTS = {
    "lora_A.weight": "down", "lora_down.weight": "down", "lora_B.weight": "up", "lora_up.weight": "up",
    "lora_B.bias": "bias", "alpha": "alpha",
}  # fmt: skip
#: What trainers write before a layer's name.
_WRAPPERS = re.compile(r"^((base_model\.model|diffusion_model|transformer|unet)\.)+")
#: Characters in a tensor's name.
_LONGEST = 200


@dataclass(frozen=True)
class LayerChange:
    """Change that a file makes to one layer.

    Attributes:
        layer: its name in diffusers' `FluxTransformer2DModel`.
        down, up, bias, alpha: names of the tensors in the file, of which the last two may be missing.
        rows: which outputs of `up` and `bias` are the layer's: (first, behind the last), in this order.
    """

    layer: str
    down: str
    up: str
    bias: str | None
    alpha: str | None
    rows: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class FluxControlLora:
    """Changes that a file makes to a transformer.

    Attributes:
        changes: of layers, that of `x_embedder` among them.
        norms: tensor of the transformer -> name in the file of what takes its place.
    """

    changes: tuple[LayerChange, ...]
    norms: Mapping[str, str]

    @classmethod
    def of(cls, stored: Mapping[str, Tensor], transformer: Layers) -> FluxControlLora:
        """Account for each tensor of a file.

        Args:
            stored: the file's.
            transformer: those of the model's transformer, in diffusers' layout.

        Raises:
            CatalogueError: it is another kind of file, or a tensor belongs to no layer or does not fit it.
        """
        groups, whole = _grouped(stored)
        layers = {flat_name(name.rpartition(".")[0]): name.rpartition(".")[0] for name in transformer}
        changes: dict[str, LayerChange] = {}
        for own, parts in groups.items():
            for change in _changes(own, parts, stored, layers, transformer):
                if changes.setdefault(change.layer, change) is not change:
                    raise CatalogueError(f"it has two sets of weights for {change.layer}: {change.down[:120]}")
        return cls(tuple(changes.values()), _norms(whole, stored, layers, transformer))


def read_control_lora(file: Path, transformer: Layers | None) -> FluxControlLora | None:
    """Read what a file makes of a transformer.

    Args:
        transformer: its tensors, in diffusers' layout; None: not known here.

    Returns:
        None where the transformer is not known; that it is a Control LoRA is checked all the same.

    Raises:
        CatalogueError: it is another kind of file, or does not fit the transformer.
        OSError: it cannot be read.
    """
    try:
        stored = read_header(file).tensors
    except NotSafetensors as error:
        raise CatalogueError(f"{file.name} {error}") from None
    try:
        _grouped(stored)
        return None if transformer is None else FluxControlLora.of(stored, transformer)
    except CatalogueError as error:
        raise CatalogueError(f"{file.name}: {error}") from None


def check_row_control_lora(catalogue: Catalogue, row: ModelSpec) -> None:
    """Check that of a model's row, with the model's transformer where that is here, too; raises CatalogueError."""
    if row.control_lora is None:
        return
    try:
        place = catalogue.locate(row.control_lora.source)
        if not isinstance(place, Path):
            return
        if not place.is_file():
            raise CatalogueError(f"{row.control_lora.source} is not a file")
        read_control_lora(place, read_denoiser(row.model_copy(update={"control_lora": None}), catalogue))
    except CatalogueError as error:
        raise CatalogueError(f"control_lora: {error}") from None


def _grouped(stored: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Flat name of a layer -> part -> name in the file; and the names of all other tensors."""
    groups: dict[str, dict[str, str]] = {}
    whole = []
    for name, tensor in stored.items():
        match = _LORA.match(name) if len(name) <= _LONGEST else None
        if match is None:
            whole.append(name)
            continue
        if tensor.dtype not in FLOATS:
            raise CatalogueError(f"{name} must be floating-point numbers, got {tensor.dtype}: without its scales")
        part, layer = place_of(_WRAPPERS.sub("", match["layer"]))
        kind = _PARTS[match["part"]]
        if groups.setdefault(layer if part == DENOISER else name, {}).setdefault(kind, name) != name:
            raise CatalogueError(f"it has two sets of weights for {match['layer']}")
    if not any(_OUTSIDE.get(layer, layer) == CONTROL_INPUT for layer in groups):
        raise CatalogueError(
            "it is not a FLUX Control LoRA, which gives x_embedder (img_in) channels for a control image; add "
            "other LoRAs as [[loras]], and name them in `loras` of requests"
        )
    return groups, whole


def _changes(
    own: str,
    parts: Mapping[str, str],
    stored: Mapping[str, Tensor],
    layers: Mapping[str, str],
    transformer: Layers,
) -> list[LayerChange]:
    """What one group of tensors adds to the layers that it stands for; raises CatalogueError."""
    example = next(iter(parts.values()))
    names = [own] if own in layers else [_OUTSIDE[own]] if own in _OUTSIDE else layers_named(own, {}) or []
    if not names or any(name not in layers for name in names):
        raise CatalogueError(f"no layer of the model takes its {example[:120]}")
    if not {"down", "up"} <= parts.keys():
        raise CatalogueError(f"{example[:120]} has no other half")
    found = [layers[name] for name in names]
    _check_shapes(found, parts, stored, transformer)
    changes, begin = [], 0
    for layer in found:
        end = begin + transformer[f"{layer}.weight"][0]
        middle = (begin + end) // 2
        rows = ((middle, end), (begin, middle)) if own == _SWAPPED else ((begin, end),)
        changes.append(LayerChange(layer, parts["down"], parts["up"], parts.get("bias"), parts.get("alpha"), rows))
        begin = end
    return changes


def _check_shapes(
    layers: list[str], parts: Mapping[str, str], stored: Mapping[str, Tensor], transformer: Layers
) -> None:
    """Refuse halves, a bias or an alpha that do not fit their layers; raises CatalogueError."""
    down, up = stored[parts["down"]].shape, stored[parts["up"]].shape
    weights = [transformer.get(f"{layer}.weight", ()) for layer in layers]
    outputs = sum(shape[0] for shape in weights if len(shape) == 2)
    inputs = weights[0][1] * (1 + (layers == [CONTROL_INPUT])) if len(weights[0]) == 2 else 0
    if len(down) != 2 or up != (outputs, down[0]) or down != (down[0], inputs) or not down[0]:
        needed = f"{inputs} inputs and {outputs} outputs"
        raise CatalogueError(
            f"the halves of {parts['down'][:120]} are {list(down)} and {list(up)}, and {needed} are needed: it is "
            "made for another model"
        )
    if "bias" in parts:
        has_biases = all(f"{layer}.bias" in transformer for layer in layers)
        if not has_biases or stored[parts["bias"]].shape != (outputs,):
            raise CatalogueError(f"no layer of the model takes its {parts['bias'][:120]}")
    if "alpha" in parts and stored[parts["alpha"]].values != 1:
        raise CatalogueError(f"{parts['alpha'][:120]} must be one value")


def _norms(
    names: list[str], stored: Mapping[str, Tensor], layers: Mapping[str, str], transformer: Layers
) -> dict[str, str]:
    """Tensor of the transformer -> name in the file, of the norms that it replaces; raises CatalogueError."""
    found: dict[str, str] = {}
    for name in names:
        layer, _, kind = _WRAPPERS.sub("", name[:_LONGEST]).rpartition(".")
        flat = flat_name(layer)
        tensor = f"{layers.get(_norm_named(flat) or flat, '')}.weight"
        if kind not in ("scale", "weight") or ".norm_" not in tensor or tensor not in transformer:
            raise CatalogueError(f"no layer of the model takes its {name[:120]}")
        if stored[name].shape != transformer[tensor] or stored[name].dtype not in FLOATS:
            own = f"{list(stored[name].shape)} ({stored[name].dtype})"
            raise CatalogueError(
                f"its {name[:120]} is {own}, and that of the model {list(transformer[tensor])}: it is made for "
                "another model"
            )
        if found.setdefault(tensor, name) != name:
            raise CatalogueError(f"it has two sets of weights for {tensor}: {name[:120]}")
    return found


def _norm_named(flat: str) -> str | None:
    match = _NORM.match(flat)
    if match is None:
        return None
    of = match["of"][0]  # q or k
    if match["block"] is None:
        return f"single_transformer_blocks_{match['single']}_attn_norm_{of}"
    return f"transformer_blocks_{match['number']}_attn_norm_{'added_' * (match['stream'] == 'txt')}{of}"
