"""Computes a hypernetwork's change of the input of attention's keys and values (A1111's web UI).

`to_k` and `to_v` of every attention whose input has a width that the file knows are given x + network(x) · scale:
the web UI's arithmetic, in the model's dtype. Knows neither files nor images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional

from contracts.weights.adapters.hypernetwork_files import KIND, Hypernetwork
from worker.adapters.layer_weight import Layer, dtype_of, shape_of
from worker.adapters.low_rank import InputChange

Activation = Callable[[torch.Tensor], torch.Tensor]
#: The web UI's names -> torch's functions.
_ACTIVATIONS: Mapping[str, Activation] = {
    "linear": lambda values: values,
    "relu": functional.relu,
    "leakyrelu": functional.leaky_relu,
    "elu": functional.elu,
    "swish": functional.hardswish,  # as the web UI has it
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "celu": functional.celu,
    "gelu": functional.gelu,
    "hardshrink": functional.hardshrink,
    "hardsigmoid": functional.hardsigmoid,
    "hardswish": functional.hardswish,
    "hardtanh": functional.hardtanh,
    "logsigmoid": functional.logsigmoid,
    "mish": functional.mish,
    "relu6": functional.relu6,
    "selu": functional.selu,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "softshrink": functional.softshrink,
    "softsign": functional.softsign,
    "tanhshrink": functional.tanhshrink,
}
_READERS = ("attn1.to_k", "attn1.to_v", "attn2.to_k", "attn2.to_v")


@dataclass
class Network:
    """One of a hypernetwork's networks, shared by all layers that it is for.

    Attributes:
        layers: of each linear layer `weight`, and where it has them `bias`, `norm.weight` and `norm.bias`.
        activation: after each but the last one.
        activate_output: also after the last one.
    """

    layers: Sequence[dict[str, torch.Tensor]]
    activation: Activation
    activate_output: bool

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer.values())

    @property
    def workspace_values(self) -> int:
        """None but what every layer's output is."""
        return 0

    def scaled(self, layer: Layer, weight: float) -> InputChange:
        """Return the change of the layer's input at a request's scale."""
        del layer
        return InputChange(lambda inputs: inputs + self.transform(inputs) * weight)

    def transform(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the network (…, width) -> (…, width) on the device and in the dtype of `inputs`."""
        values, last = inputs, len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            self._move_to(layer, inputs)
            values = functional.linear(values, layer["weight"], layer.get("bias"))
            if index < last or self.activate_output:
                values = self.activation(values)
            if "norm.weight" in layer:
                values = functional.layer_norm(values, values.shape[-1:], layer["norm.weight"], layer["norm.bias"])
        return values

    @staticmethod
    def _move_to(layer: dict[str, torch.Tensor], inputs: torch.Tensor) -> None:
        """Move to where the denoiser computes: with offloading that changes between calls."""
        if layer["weight"].device != inputs.device or layer["weight"].dtype != inputs.dtype:
            layer.update({part: tensor.to(inputs.device, inputs.dtype) for part, tensor in layer.items()})


def read_networks(denoiser: torch.nn.Module, path: Path, hypernetwork: Hypernetwork) -> dict[Layer, Network]:
    """Read a file's networks for a model's layers of keys and values, each copied to the layers' device and dtype.

    Raises:
        ValueError: it does not fit this model, or contains NaN or infinite values.
    """
    readers = _readers(denoiser)
    shapes = {name.replace(".", "_"): shape_of(layer) for name, layer in readers.items()}
    if reason := next(hypernetwork.mismatches(shapes, "the model"), None):
        raise ValueError(reason)
    tensors = load_file(path)
    networks: dict[tuple[int, str], Network] = {}
    found: dict[Layer, Network] = {}
    for name, layer in readers.items():
        width, half = layer.in_features, name[-1]
        if width not in hypernetwork.depths:
            continue
        if (width, half) not in networks:
            copy = partial(_copy, tensors, like=layer)
            depth = hypernetwork.depths[width][half]
            layers = [copy(f"{KIND}.{width}.{half}.{index}.") for index in range(depth)]
            activation = _ACTIVATIONS[hypernetwork.activation]
            networks[width, half] = Network(layers, activation, hypernetwork.activate_output)
        found[layer] = networks[width, half]
    return found


def _readers(denoiser: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    """The layers that make keys and values, by their names."""
    return {
        name: layer
        for name, layer in denoiser.named_modules()
        if isinstance(layer, torch.nn.Linear) and name.endswith(_READERS)
    }


def _copy(tensors: Mapping[str, torch.Tensor], prefix: str, like: Layer) -> dict[str, torch.Tensor]:
    """One layer's tensors, copied: those of the file map its bytes and would change with it."""
    dtype = dtype_of(like)
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    for part, tensor in own.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{prefix}{part} contains NaN or infinite values")
    return {
        part: tensor.detach().to(like.weight.device, dtype, copy=True).contiguous() for part, tensor in own.items()
    }
