"""UniPC's two updates with their weights computed on the host (https://arxiv.org/abs/2302.04867, B(h) = bh2).

diffusers 0.42 computes the weights on the device: some 40 kernels a step for a few numbers, which it copies there
and solves a system for that it waits for. Formulas, order of operations and so, on the CPU, bits are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

#: Higher orders, which no row of the table asks for, are computed as in diffusers.
_MAX_ORDER = 2


class HostUniPC:
    """Mixin for diffusers' `UniPCMultistepScheduler`."""

    config: Any
    model_outputs: Sequence[torch.Tensor]
    predict_x0: bool
    sigmas: torch.Tensor
    solver_p: Any
    step_index: int
    _sigma_to_alpha_sigma_t: Any

    def multistep_uni_p_bh_update(self, model_output: torch.Tensor, *, sample: torch.Tensor, order: int) -> Any:
        """Predict the sample at the next timestep."""
        if not self._is_usual(order):
            parent: Any = super()
            return parent.multistep_uni_p_bh_update(model_output, sample=sample, order=order)
        return self._update(sample, self.step_index + 1, order, None)

    def multistep_uni_c_bh_update(
        self, this_model_output: torch.Tensor, *, last_sample: torch.Tensor, this_sample: torch.Tensor, order: int
    ) -> Any:
        """Correct the sample at this timestep by the model's output for it."""
        if not self._is_usual(order):
            parent: Any = super()
            return parent.multistep_uni_c_bh_update(
                this_model_output, last_sample=last_sample, this_sample=this_sample, order=order
            )
        return self._update(last_sample, self.step_index, order, this_model_output)

    def _is_usual(self, order: int) -> bool:
        usual = self.predict_x0 and not self.solver_p and self.config.solver_type == "bh2"
        return usual and order <= _MAX_ORDER

    def _update(
        self, sample: torch.Tensor, index: int, order: int, corrector: torch.Tensor | None
    ) -> torch.Tensor:
        """Solve from the sigma before `index` to it; `corrector` is the model's output there, None to predict."""
        last = self.model_outputs[-1]
        alpha, sigma = self._sigma_to_alpha_sigma_t(self.sigmas[index])
        _, sigma_before = self._sigma_to_alpha_sigma_t(self.sigmas[index - 1])
        log_before = self._log_ratio(index - 1)
        step = self._log_ratio(index) - log_before
        ratios = [(self._log_ratio(index - 1 - back) - log_before) / step for back in range(1, order)]
        differences = [
            (self.model_outputs[-1 - back] - last) / ratio for back, ratio in enumerate(ratios, start=1)
        ]
        growth = torch.expm1(-step)
        weights = _weights(ratios, -step, growth, order, corrects=corrector is not None).to(sample.dtype)
        moved = sigma / sigma_before * sample - alpha * growth * last
        change: Any = sum(weight * difference for weight, difference in zip(weights, differences, strict=False))
        if corrector is not None:
            change = change + weights[-1] * (corrector - last)
        result: torch.Tensor = (moved - alpha * growth * change).to(sample.dtype)
        return result

    def _log_ratio(self, index: int) -> torch.Tensor:
        """Half the logarithm of the signal-to-noise ratio."""
        alpha, sigma = self._sigma_to_alpha_sigma_t(self.sigmas[index])
        return torch.log(alpha) - torch.log(sigma)


def _weights(
    ratios: Sequence[torch.Tensor], step: torch.Tensor, growth: torch.Tensor, order: int, *, corrects: bool
) -> torch.Tensor:
    """The weights of the differences, the corrector's own last: (order,), or one less to predict."""
    if order == 1 or (order == 2 and not corrects):
        # diffusers' simplified version, as in the paper's code.
        return torch.ones(1) * 0.5
    powers = torch.stack([*ratios, torch.ones(())])
    phi, factorial = growth / step - 1, 1
    rows, targets = [], []
    for power in range(order):
        rows.append(torch.pow(powers, power))
        targets.append(phi * factorial / growth)
        factorial *= power + 2
        phi = phi / step - 1 / factorial
    solution: torch.Tensor = torch.linalg.solve(torch.stack(rows), torch.stack(targets))
    return solution
