"""LoKr in training: a Kronecker product of two small matrices beside each layer, as the worker computes it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from worker.adapters.weight_differences import Kronecker
from worker.training.trainees.trainee import Trainee

_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")


class TrainedKronecker(Trainee):
    """Two factors of each linear layer of a UNet's attention and feed-forward blocks.

    Both are whole, so the file has neither rank nor alpha.
    """

    def __init__(self, unet: Any, factor: int) -> None:
        """The second factors are zeros, which change nothing yet.

        Args:
            factor: sides of the first factors; divides the widths of all layers.
        """
        generator = torch.Generator().manual_seed(0)
        self._layers: dict[str, nn.Linear] = {
            name: layer
            for name, layer in unet.requires_grad_(False).named_modules()
            if isinstance(layer, nn.Linear) and name.endswith(_LAYERS)
        }
        self._factors: dict[str, dict[str, nn.Parameter]] = {
            name: {
                "lokr_w1": nn.Parameter(torch.randn(factor, factor, generator=generator) / factor),
                "lokr_w2": nn.Parameter(torch.zeros(layer.out_features // factor, layer.in_features // factor)),
            }
            for name, layer in self._layers.items()
        }
        self.parameters: Mapping[str, nn.Parameter] = {
            f"lora_unet_{name.replace('.', '_')}.{part}": value
            for name, parts in self._factors.items()
            for part, value in parts.items()
        }

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """See `Trainee`."""
        with ExitStack() as hooks:
            for name, layer in self._layers.items():
                hooks.callback(layer.register_forward_hook(_hook(self._factors[name])).remove)
            yield


def _hook(factors: Mapping[str, nn.Parameter]) -> Any:
    change = Kronecker(dict(factors))

    def add(layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + change.product(layer, inputs[0])

    return add
