"""Muon in float32: torch's own computes in bfloat16, which is far slower on a CPU without instructions for it.

The same update otherwise, with learning rates as AdamW has them (Jordan et al., 2024; Liu et al., 2025).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
_MOMENTUM = 0.95
#: Root mean square of AdamW's updates, as a part of the learning rate.
_UPDATE_SIZE = 0.2


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose every update is made nearly orthogonal; weights decay as in AdamW."""

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the matrices by their gradients."""
        del closure
        for group in self.param_groups:
            for matrix in group["params"]:
                kept = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
                kept.lerp_(matrix.grad, 1 - _MOMENTUM)
                update = orthogonal(matrix.grad.lerp(kept, _MOMENTUM))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * _UPDATE_SIZE * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix with about the same singular vectors, whose singular values all are about 1 (Newton and Schulz)."""
    turned = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    turned = turned / turned.norm().clamp(min=1e-7)
    first, second, third = _COEFFICIENTS
    for _ in range(_ROUNDS):
        gram = turned @ turned.T
        turned = torch.addmm(turned, torch.addmm(gram, gram, gram, beta=second, alpha=third), turned, beta=first)
    return turned.T if matrix.shape[0] > matrix.shape[1] else turned
