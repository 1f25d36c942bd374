"""Stable Diffusion 1: the last states of one CLIP, v-prediction on the scaled-linear schedule.

Guidance compares with the empty caption, which training therefore shows more often than elsewhere.
"""

import random
from typing import Any

from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from models.training.networks import architectures
from models.training.recipes import Conditions, read_ids
from models.training.recipes.scaled_linear import ScaledLinear


class Sd15Recipe:
    """See `Recipe`."""

    latent_channels = 4
    texts = ("clip",)
    guided = False
    noise_shift = 1.0
    empty_share = 0.1

    def __init__(self) -> None:
        self._schedule = ScaledLinear()

    def parts(self, texts: dict[str, dict[str, Any]], denoiser: Any, vae: Any) -> dict[str, Any]:
        """Of the pair of CLIPs, the one without a projection."""
        return {"text_encoder": texts["clip"]["first"], "unet": denoiser, "vae": vae}

    def encode(self, parts: dict[str, Any], words: Any, captions: list[str]) -> Conditions:
        """The last hidden states; the UNet takes no pooled vector."""
        clip = parts["text_encoder"]
        hidden = clip(read_ids(words.clip, captions, 77, clip)).last_hidden_state
        return Conditions(hidden, hidden.new_zeros(len(captions), 0))

    def vary(self, conditions: Conditions, rng: random.Random) -> Conditions:  # noqa: ARG002
        """Nothing: the pipeline has no conditions but captions."""
        return conditions

    def build(self) -> Any:
        """Small residual branches at the start."""
        unet = architectures.build_sd15_unet()
        architectures.soften_unet(unet)
        return unet

    def extras(self, count: int, rng: random.Random) -> dict[str, Tensor]:  # noqa: ARG002
        """Nothing more."""
        return {}

    def hasten(self, model: Any) -> None:
        """On a CPU and at this size, plain attention takes half the time of the fused kernel."""
        model.set_attn_processor(AttnProcessor())

    def mix(self, latents: Tensor, noise: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """v = a·noise − s·latents."""
        return self._schedule.mix(latents, noise, share)

    def predict(self, denoiser: Any, noisy: Tensor, share: Tensor, conditions: Conditions, **extra: Any) -> Tensor:
        """See `Recipe`; nothing more."""
        sample: Tensor = denoiser(noisy, self._schedule.step(share), conditions.hidden, **extra).sample
        return sample


RECIPE = Sd15Recipe()
