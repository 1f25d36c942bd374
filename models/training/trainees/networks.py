"""A hypernetwork in training: networks before the keys and values of attention, as the worker computes them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.weights.adapters.hypernetwork_files import KIND
from models.training.trainees.prompts import without_prompts
from worker.adapters.hypernetworks import Network
from worker.training.examples import Example
from worker.training.trainees.trainee import Trainee

_READERS = ("to_k", "to_v")


class TrainedHypernetwork(Trainee):
    """Two networks, of two layers each, for every width that a UNet's keys and values are made from."""

    def __init__(self, unet: Any) -> None:
        """The last layers are zeros, which change nothing yet."""
        self._layers = {
            name: layer
            for name, layer in unet.requires_grad_(False).named_modules()
            if isinstance(layer, nn.Linear) and name.endswith(_READERS)
        }
        generator = torch.Generator().manual_seed(0)
        ends = sorted({(layer.in_features, name[-1]) for name, layer in self._layers.items()})
        self._networks = {end: _network(end[0], generator) for end in ends}
        self.parameters: Mapping[str, nn.Parameter] = {
            f"{KIND}.{width}.{half}.{index}.{part}": value
            for (width, half), network in self._networks.items()
            for index, layer in enumerate(network.layers)
            for part, value in layer.items()
            if isinstance(value, nn.Parameter)
        }

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """See `Trainee`."""
        with ExitStack() as hooks:
            for name, layer in self._layers.items():
                hook = _hook(self._networks[layer.in_features, name[-1]])
                hooks.callback(layer.register_forward_pre_hook(hook).remove)
            yield

    def read(self, rows: Sequence[Example]) -> Sequence[Example]:
        """See `Trainee`."""
        return without_prompts(rows)

    def file(self, facts: Mapping[str, str]) -> bytes:
        """See `Trainee`; in half precision, as `darkroom convert` writes one."""
        settings = json.dumps({"activation": "relu", "activate_output": False}, sort_keys=True)
        return super().file({KIND: settings, **facts})


def _network(width: int, generator: torch.Generator) -> Network:
    first = torch.randn(width, width, generator=generator) * width**-0.5
    layers: list[dict[str, Tensor]] = [
        {"weight": nn.Parameter(first), "bias": nn.Parameter(torch.zeros(width))},
        {"weight": nn.Parameter(torch.zeros(width, width)), "bias": nn.Parameter(torch.zeros(width))},
    ]
    return Network(layers, functional.relu, activate_output=False)


def _hook(network: Network) -> Any:
    def change(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        del layer
        return (inputs[0] + network.transform(inputs[0]), *inputs[1:])

    return change
