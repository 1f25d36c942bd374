"""Which optimizer moves which weights, and what of its memory a checkpoint keeps. Knows no task and no schedule.

AdamW moves everything, unless the plan names a rate for Muon: then Muon moves the matrices inside the blocks
(Jordan et al., 2024), and AdamW the embeddings, the last layer, gains and biases. Muon makes every update
orthogonal, so that rare directions learn as fast as common ones; transformers need less than half the steps.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.training.muon import Muon

_OUTSIDE_BLOCKS = ("embed", "proj_out")
#: What a checkpoint holds beside the moments, under the same form of name.
_NOT_OURS = ("weight", "average")


class Optimizers:
    """AdamW, and Muon beside it where it has a rate; both follow one schedule."""

    def __init__(self, named: Mapping[str, nn.Parameter], rate: float, muon_rate: float, decay: float) -> None:
        inner = {name for name, weight in named.items() if muon_rate and is_inner(name, weight)}
        outer = {name: weight for name, weight in named.items() if name not in inner}
        groups = [
            {"params": [w for w in outer.values() if w.ndim > 1], "weight_decay": decay},
            {"params": [w for w in outer.values() if w.ndim <= 1], "weight_decay": 0.0},
        ]
        adam = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True)
        self._named = named
        self._all: list[tuple[torch.optim.Optimizer, float]] = [(adam, rate)]
        self._owner: dict[str, torch.optim.Optimizer] = dict.fromkeys(outer, adam)
        if inner:
            matrices = [named[name] for name in named if name in inner]
            muon = Muon(matrices, muon_rate, decay)
            self._all.append((muon, muon_rate))
            self._owner |= dict.fromkeys(inner, muon)

    def schedule(self, share: float) -> None:
        """Sets every rate to a share of its own, from 0 to 1."""
        for optimizer, rate in self._all:
            for group in optimizer.param_groups:
                group["lr"] = rate * share

    def step(self) -> None:
        """Moves the weights by their gradients, which are cleared."""
        for optimizer, _ in self._all:
            optimizer.step()
            optimizer.zero_grad()

    def remember(self) -> dict[str, Tensor]:
        """The moments of every weight, for a checkpoint."""
        return {
            f"{key}:{name}": value
            for name, weight in self._named.items()
            for key, value in self._owner[name].state[weight].items()
            if key != "step"
        }

    def recall(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Takes the moments of a checkpoint up again, after this many steps."""
        for entry, value in tensors.items():
            key, _, name = entry.partition(":")
            if name in self._named and key not in _NOT_OURS:
                weight = self._named[name]
                self._owner[name].state[weight][key] = value.to(weight.device)
        for name, weight in self._named.items():
            if isinstance(self._owner[name], torch.optim.AdamW):
                self._owner[name].state[weight]["step"] = torch.tensor(float(step), device=weight.device)


def is_inner(name: str, weight: Tensor) -> bool:
    """Whether this is a matrix between the first and the last layer."""
    return weight.ndim == 2 and not any(part in name for part in _OUTSIDE_BLOCKS)
