"""Hypernetwork files: small networks that change what attention reads, one pair for each width (A1111's web UI).

The web UI stores them as pickles with an order of layers that depends on their settings. `darkroom convert` writes
the safetensors that are read here: `hypernetwork.WIDTH.k.0.weight`, the linear layers of the network for keys in
their order, `v` for values, with `.bias`, and `.norm.weight` and `.norm.bias` of a layer norm after one; in the
metadata `hypernetwork`, JSON with `activation` and `activate_output`. Reads names and shapes only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from contracts.catalogue.family import Family
from contracts.errors import AdapterRefused
from contracts.weights.formats.safetensors import Tensor

#: What lists call files of this kind, and their layout.
KIND = "hypernetwork"
#: Between the linear layers, as the web UI names them: those of torch without parameters.
ACTIVATIONS = (
    "linear", "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid", "celu", "gelu", "hardshrink", "hardsigmoid",
    "hardswish", "hardtanh", "logsigmoid", "mish", "relu6", "selu", "silu", "softplus", "softshrink", "softsign",
    "tanhshrink",
)  # fmt: skip
_PREFIX = f"{KIND}."
_NAME = re.compile(
    rf"^{KIND}\.(?P<width>[1-9]\d{{0,5}})\.(?P<half>[kv])\.(?P<index>\d{{1,2}})\.(?P<part>(norm\.)?(weight|bias))$"
)
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
#: Layers of a denoiser that read what is changed.
_READERS = ("attn1_to_k", "attn2_to_k")


@dataclass(frozen=True)
class Hypernetwork:
    """A hypernetwork, by its file's header.

    Attributes:
        depths: width of what it changes -> linear layers of each of its two networks there.
        activation: one of `ACTIVATIONS`.
        activate_output: whether it also follows the last layer.
    """

    depths: Mapping[int, Mapping[str, int]]
    activation: str
    activate_output: bool

    def mismatches(self, shapes: Mapping[str, tuple[int, ...]], model: str) -> Iterator[str]:
        """Yield why it does not fit a model.

        Args:
            shapes: of the weights of the denoiser's layers, by their names with underscores for dots.
            model: what messages call it.
        """
        known = {shape[1] for name, shape in shapes.items() if name.endswith(_READERS)}
        for width in sorted(self.depths.keys() - known):
            listed = ", ".join(map(str, sorted(known))) or "none"
            yield f"it changes attention layers with {width} channels, and those of {model} have {listed}"


def has_hypernetworks(family: Family) -> bool:
    """Whether hypernetworks can act on a family's models: UNets whose attention reads prompts of one width."""
    return bool(family.denoiser_layers and family.context_widths)


def is_hypernetwork(names: Collection[str]) -> bool:
    """Whether a file's tensors are named as those of a hypernetwork."""
    return any(name.startswith(_PREFIX) for name in names)


def read_hypernetwork(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Hypernetwork:
    """Read what a file's header says of a hypernetwork.

    Raises:
        AdapterRefused: a tensor does not belong to one, one is missing, or shapes or settings disagree.
    """
    networks: dict[tuple[int, str], dict[int, dict[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        match = _NAME.match(name)
        if match is None:
            raise AdapterRefused(f"{name[:120]!r} is not part of a hypernetwork")
        if tensor.dtype not in _FLOATS:
            raise AdapterRefused(f"{name[:120]} must be floating-point numbers, got {tensor.dtype}")
        layers = networks.setdefault((int(match["width"]), match["half"]), {})
        layers.setdefault(int(match["index"]), {})[match["part"]] = tensor
    depths: dict[int, dict[str, int]] = {}
    for (width, half), layers in networks.items():
        _check_network(f"{_PREFIX}{width}.{half}", width, layers)
        depths.setdefault(width, {})[half] = len(layers)
    if not depths:
        raise AdapterRefused("the file contains no networks")
    for width, halves in depths.items():
        if len(halves) < 2:
            raise AdapterRefused(f"its networks of width {width} lack {'k' if 'v' in halves else 'v'}")
    return Hypernetwork(depths, *_read_settings(metadata))


def _check_network(name: str, width: int, layers: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Check that one network's layers follow each other and end as wide as they begin."""
    before = width
    for index in range(len(layers)):
        shapes = {part: tensor.shape for part, tensor in layers.get(index, {}).items()}
        if len(shapes.get("weight", ())) != 2 or shapes["weight"][1] != before or 0 in shapes["weight"]:
            found = list(shapes.get("weight", ())) or "none"
            raise AdapterRefused(f"{name}.{index}.weight must map {before} channels, got {found}")
        before = shapes["weight"][0]
        for part in shapes.keys() - {"weight"}:
            if shapes[part] != (before,):
                raise AdapterRefused(f"{name}.{index}.{part} must have {before} values, got {list(shapes[part])}")
        if ("norm.weight" in shapes) != ("norm.bias" in shapes):
            raise AdapterRefused(f"{name}.{index}.norm must have weight and bias")
    if before != width:
        raise AdapterRefused(f"{name} gives {before} channels, and must give {width}")


def _read_settings(metadata: Mapping[str, str]) -> tuple[str, bool]:
    try:
        settings = json.loads(metadata.get(KIND, ""))
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict) or settings.keys() != {"activation", "activate_output"}:
        raise AdapterRefused(
            "its metadata must have `hypernetwork`, JSON with activation and activate_output: make it with "
            "`darkroom convert`"
        )
    activation, activate_output = settings["activation"], settings["activate_output"]
    if activation not in ACTIVATIONS:
        raise AdapterRefused(f"its activation {str(activation)[:40]!r} is not one of {', '.join(ACTIVATIONS)}")
    if not isinstance(activate_output, bool):
        raise AdapterRefused("its activate_output must be true or false")
    return activation, activate_output
