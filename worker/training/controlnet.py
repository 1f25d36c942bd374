"""A ControlNet in training: a copy of a UNet's encoder that reads control images; the UNet stays what it is.

As in diffusers' `train_controlnet.py`: it starts as `ControlNetModel.from_unet` makes it, whose last layers are
zeros and change nothing yet. Knows no objectives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import ControlNetModel

from worker.training.examples import Example
from worker.training.files import half_precision, to_safetensors
from worker.training.trainee import Trainee

#: Widths of the layers that scale a control image down, each but the first to half of its size.
_WIDTHS = (16, 32, 96, 256)


class TrainedControlNet(Trainee):
    """A ControlNet of a UNet, in float32 on the UNet's device."""

    def __init__(self, unet: Any, levels: int, seed: int) -> None:
        """Copy the UNet's encoder; what reads the control image is drawn from the seed.

        Args:
            levels: of the VAE, which scales an image down to half of its size between any two of them.

        Raises:
            ValueError: the VAE has too many.
        """
        if levels > len(_WIDTHS):
            raise ValueError(f"no ControlNet scales an image down as a VAE of {levels} levels does")
        self._unet = unet.requires_grad_(False)  # nobody else asks for gradients
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=_WIDTHS[:levels])
        self._net: Any = net.to(unet.device).requires_grad_(True)  # in float32
        self.parameters: Mapping[str, torch.nn.Parameter] = dict(self._net.named_parameters())

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """See `Trainee`; both recompute activations in the backward pass."""
        modules = (self._unet, self._net)
        for module in modules:
            module.enable_gradient_checkpointing()
        try:
            yield
        finally:
            for module in modules:
                module.disable_gradient_checkpointing()

    def steered(self, denoiser: Any, rows: Sequence[Example]) -> Callable[..., Any]:
        """See `Trainee`: the ControlNet reads the rows' control images first, and adds to the UNet's layers."""
        hints = torch.cat([_hint(row) for row in rows])

        def call(latents: torch.Tensor, timesteps: torch.Tensor, words: torch.Tensor, **more: Any) -> Any:
            down, middle = self._net(
                latents, timesteps, words, hints.to(latents.device), return_dict=False, **more
            )
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            return denoiser(latents, timesteps, words, **residuals, **more)

        return call

    def file(self, facts: Mapping[str, str]) -> bytes:
        """See `Trainee`; the weights of diffusers' `ControlNetModel`, in half precision."""
        tensors = {name: parameter.detach() for name, parameter in self.parameters.items()}
        return to_safetensors(half_precision(tensors), {"format": "pt", **facts})


def _hint(row: Example) -> torch.Tensor:
    if row.hint is None:
        raise ValueError("an example of a ControlNet must have a control image")
    return row.hint
