"""The optimizers: PyTorch's AdamW, and bitsandbytes' with averages in 8 bits; and what a checkpoint has of each.

bitsandbytes is imported with the first training that asks for it. Knows no schedule.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch

from contracts.requests.training.settings import EIGHT_BIT


def available_optimizers() -> frozenset[str]:
    """Those that this worker has beside PyTorch's, as in `JobParameters.needs`."""
    return frozenset() if find_spec("bitsandbytes") is None else frozenset({EIGHT_BIT})


class Optimizer(ABC):
    """An optimizer of named parameters."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], learning_rate: float) -> None:
        """Nothing is known of the parameters yet."""
        self._parameters = parameters
        self.torch = self._make(list(parameters.values()), learning_rate)

    @abstractmethod
    def _make(self, parameters: list[torch.nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        """Make it."""

    @abstractmethod
    def _begin(self, parameter: torch.nn.Parameter, index: int, step: int) -> None:
        """Make the state of a parameter."""

    def begin(self, step: int) -> None:
        """Make the state as it is after so many steps, for a checkpoint's values."""
        for index, parameter in enumerate(self._parameters.values()):
            self._begin(parameter, index, step)

    def forget(self) -> None:
        """Forget the state."""
        self.torch.state.clear()

    def step(self, learning_rate: float) -> None:
        """Change the parameters by their gradients, which are cleared."""
        for group in self.torch.param_groups:
            group["lr"] = learning_rate
        self.torch.step()
        self.torch.zero_grad(set_to_none=True)

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """What it knows of the parameters, `KIND:NAME`, but constants."""
        return {
            f"{key}:{name}": value
            for name, parameter in self._parameters.items()
            for key, value in self.torch.state[parameter].items()
            if isinstance(value, torch.Tensor) and key != "step" and not key.startswith("qmap")
        }

    @property
    def state_bytes(self) -> int:
        """Device memory of its state; before the first step, what it takes at most."""
        known = sum(tensor.nbytes for tensor in self.state.values())
        return known or 2 * sum(parameter.nbytes for parameter in self._parameters.values())


class AdamW(Optimizer):
    """PyTorch's AdamW."""

    def _make(self, parameters: list[torch.nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=learning_rate)

    def _begin(self, parameter: torch.nn.Parameter, index: int, step: int) -> None:
        del index
        averages = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
        self.torch.state[parameter] = {"step": torch.tensor(float(step)), **averages}


class AdamW8bit(Optimizer):
    """bitsandbytes' AdamW in 8 bits; averages of parameters with less than 4096 values stay in 32 bits."""

    def _make(self, parameters: list[torch.nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        library = importlib.import_module("bitsandbytes")
        made: torch.optim.Optimizer = library.optim.AdamW8bit(parameters, lr=learning_rate)
        return made

    def _begin(self, parameter: torch.nn.Parameter, index: int, step: int) -> None:
        optimizer: Any = self.torch
        optimizer.init_state(optimizer.param_groups[0], parameter, 0, index)
        optimizer.state[parameter]["step"] = step


OPTIMIZERS: Mapping[str, type[Optimizer]] = {"adamw": AdamW, "adamw8bit": AdamW8bit}
