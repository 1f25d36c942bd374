"""A ControlNet in training: a copy of some of a denoiser's layers that reads control images beside it.

As in diffusers' `train_controlnet.py`, `train_controlnet_sd3.py` and `train_controlnet_flux.py`: its last layers
are zeros and change nothing yet, and the denoiser stays what it is. Knows no objectives.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import diffusers
import torch

from worker.families import get_family
from worker.sampling.previews import encode_distribution
from worker.training.examples import Example
from worker.training.files import half_precision, to_safetensors
from worker.training.packing import pack
from worker.training.trainees.copies import copy_transformer, copy_unet
from worker.training.trainees.trainee import Trainee


class TrainedControlNet(Trainee):
    """A ControlNet of a denoiser, in float32 on the denoiser's device."""

    def __init__(self, denoiser: Any, net: Any) -> None:
        """Begin with a copy of the denoiser's layers, in float32 in host memory."""
        self._denoiser = denoiser.requires_grad_(False)  # nobody else asks for gradients
        self._net = net.to(denoiser.device).requires_grad_(True)
        self.parameters: Mapping[str, torch.nn.Parameter] = dict(self._net.named_parameters())

    @classmethod
    @abstractmethod
    def begin(cls, family: str, denoiser: Any, vae: Any, examples: Sequence[Example], seed: int) -> Trainee:
        """Begin a training on examples.

        Raises:
            ValueError: diffusers has none that fits the VAE.
        """

    @classmethod
    @abstractmethod
    def read_control(cls, vae: Any, pixels: torch.Tensor) -> torch.Tensor:
        """Return what an example keeps of a control image, (1, 3, height, width) in bytes: in host memory."""

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """See `Trainee`; both networks recompute activations in the backward pass."""
        modules = (self._denoiser, self._net)
        for module in modules:
            module.enable_gradient_checkpointing()
        try:
            yield
        finally:
            for module in modules:
                module.disable_gradient_checkpointing()

    def file(self, facts: Mapping[str, str]) -> bytes:
        """See `Trainee`; the weights of diffusers' class, in half precision."""
        return to_safetensors(half_precision(self._net.state_dict()), {"format": "pt", **facts})


class UNetControlNet(TrainedControlNet):
    """A ControlNet of a UNet, which reads the pixels of control images."""

    @classmethod
    def begin(cls, family: str, denoiser: Any, vae: Any, examples: Sequence[Example], seed: int) -> Trainee:
        """See `TrainedControlNet`."""
        del family, examples
        return cls(denoiser, copy_unet(denoiser, len(vae.config.block_out_channels), seed))

    @classmethod
    def read_control(cls, vae: Any, pixels: torch.Tensor) -> torch.Tensor:
        """See `TrainedControlNet`: the bytes, a quarter of the values' size."""
        del vae
        return pixels

    def steered(self, denoiser: Any, rows: Sequence[Example]) -> Callable[..., Any]:
        """See `Trainee`: the ControlNet reads the rows' control images first, and adds to the UNet's layers."""
        pixels = _controls(rows).float() / 255

        def call(latents: torch.Tensor, timesteps: torch.Tensor, words: torch.Tensor, **more: Any) -> Any:
            down, middle = self._net(
                latents, timesteps, words, pixels.to(latents.device), return_dict=False, **more
            )
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            return denoiser(latents, timesteps, words, **residuals, **more)

        return call


class TransformerControlNet(TrainedControlNet):
    """A ControlNet of a transformer, which reads the latents of control images."""

    @classmethod
    def begin(cls, family: str, denoiser: Any, vae: Any, examples: Sequence[Example], seed: int) -> Trainee:
        """See `TrainedControlNet`."""
        del vae, examples, seed  # all of its layers are copies or zeros
        return cls(denoiser, copy_transformer(getattr(diffusers, get_family(family).controlnet), denoiser))

    @classmethod
    def read_control(cls, vae: Any, pixels: torch.Tensor) -> torch.Tensor:
        """See `TrainedControlNet`: latents, as the transformer has them."""
        return encode_distribution(vae, pixels.float() / 127.5 - 1)[0].float().cpu()

    def steered(self, denoiser: Any, rows: Sequence[Example]) -> Any:
        """See `Trainee`: the ControlNet reads the rows' control images first, and adds to the blocks' outputs."""
        steered: Any = partial(self._call, denoiser, self._arranged(_controls(rows)))
        steered.config = denoiser.config  # which says whether it is told a guidance
        return steered

    def _call(self, denoiser: Any, controls: torch.Tensor, **arguments: Any) -> Any:
        latents = arguments["hidden_states"]
        added = self._net(controlnet_cond=controls.to(latents.device, latents.dtype), **self._own(arguments))
        return denoiser(**arguments, **self._residuals(added))

    def _arranged(self, controls: torch.Tensor) -> torch.Tensor:
        """Latents of control images, (n, channels, height, width), as the ControlNet is given them: packed."""
        return pack(controls)

    def _own(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments of the ControlNet, beside its control, for those of the transformer."""
        return arguments

    @abstractmethod
    def _residuals(self, added: Any) -> Mapping[str, Any]:
        """The ControlNet's result as further arguments of the transformer."""


class Sd3ControlNet(TransformerControlNet):
    """A ControlNet of Stable Diffusion 3, with two conventions of the pipelines for it.

    They give the ControlNet zeros for the pooled vector of the prompt, and do not shift the latents of control
    images (`force_zeros_for_pooled_projection`, the default of a file without a configuration).
    """

    @classmethod
    def begin(cls, family: str, denoiser: Any, vae: Any, examples: Sequence[Example], seed: int) -> Trainee:
        """See `TrainedControlNet`; zeros have the effect of the captions' mean vector.

        The copied blocks have never met zeros, and answer them with states that are far too large.
        """
        net: Any = super().begin(family, denoiser, vae, examples, seed)
        first = net._net.time_text_embed.text_embedder.linear_1
        vectors = torch.cat([row.embeddings["pooled_prompt_embeds"] for row in examples])
        with torch.no_grad():
            first.bias += first.weight @ vectors.float().mean(0).to(first.weight.device)
        trainee: Trainee = net
        return trainee

    @classmethod
    def read_control(cls, vae: Any, pixels: torch.Tensor) -> torch.Tensor:
        """See `TrainedControlNet`: latents that are scaled and not shifted."""
        shift = (vae.config.get("shift_factor") or 0.0) * vae.config.scaling_factor
        latents: torch.Tensor = super().read_control(vae, pixels) + shift
        return latents

    def _arranged(self, controls: torch.Tensor) -> torch.Tensor:
        return controls

    def _own(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**arguments, "pooled_projections": torch.zeros_like(arguments["pooled_projections"])}

    def _residuals(self, added: Any) -> Mapping[str, Any]:
        return {"block_controlnet_hidden_states": added[0]}


class FluxControlNet(TransformerControlNet):
    """A ControlNet of FLUX.1, whose blocks of both kinds are added to those of the transformer."""

    def _residuals(self, added: Any) -> Mapping[str, Any]:
        return {"controlnet_block_samples": added[0], "controlnet_single_block_samples": added[1]}


class QwenControlNet(TransformerControlNet):
    """A ControlNet of Qwen-Image."""

    def _residuals(self, added: Any) -> Mapping[str, Any]:
        return {"controlnet_block_samples": added}


#: Family -> what is trained for it.
CONTROLNETS: Mapping[str, type[TrainedControlNet]] = {
    "sd15": UNetControlNet,
    "sdxl": UNetControlNet,
    "sd3": Sd3ControlNet,
    "flux": FluxControlNet,
    "qwen-image": QwenControlNet,
}


def _controls(rows: Sequence[Example]) -> torch.Tensor:
    controls = [row.control for row in rows if row.control is not None]
    if len(controls) < len(rows):
        raise ValueError("a training example of a ControlNet must have a control image")
    return torch.cat(controls)
