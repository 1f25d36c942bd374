"""SDXL: two CLIPs side by side, size conditions, v-prediction on the scaled-linear schedule."""

import random
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from models.training.networks import architectures
from models.training.recipes import Conditions, broadcast, draw_kept, read_ids
from models.training.recipes.scaled_linear import ScaledLinear

_USUAL_SIZES = (64.0, 64.0, 0.0, 0.0, 64.0, 64.0)
_ZEROED_SHARE = 0.07
_OTHER_SIZES_SHARE = 0.12


class SdxlRecipe:
    """See `Recipe`."""

    latent_channels = 4
    texts = ("clip",)
    guided = False
    noise_shift = 1.0
    empty_share = 0.03

    def __init__(self) -> None:
        self._schedule = ScaledLinear()

    def parts(self, texts: dict[str, dict[str, Any]], denoiser: Any, vae: Any) -> dict[str, Any]:
        """The second encoder is the one whose pooled vector counts."""
        clips = texts["clip"]
        return {
            "text_encoder": clips["first"],
            "text_encoder_2": clips["second"],
            "unet": denoiser,
            "vae": vae,
        }

    def encode(self, parts: dict[str, Any], words: Any, captions: list[str]) -> Conditions:
        """The last but one hidden states of both, and the second's projected pooled vector."""
        first, second = parts["text_encoder"], parts["text_encoder_2"]
        one = first(read_ids(words.clip, captions, 77, first), output_hidden_states=True)
        two = second(read_ids(words.second_clip, captions, 77, second), output_hidden_states=True)
        return Conditions(torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1), two.text_embeds)

    def vary(self, conditions: Conditions, rng: random.Random) -> Conditions:
        """Zero the conditions of some samples, as the pipeline does without a negative prompt."""
        kept = draw_kept(conditions, _ZEROED_SHARE, rng)
        return Conditions(
            conditions.hidden * broadcast(kept, conditions.hidden),
            conditions.pooled * broadcast(kept, conditions.pooled),
        )

    def build(self) -> Any:
        """Small residual branches at the start."""
        unet = architectures.build_unet()
        architectures.soften_unet(unet)
        return unet

    def hasten(self, model: Any) -> None:
        """On a CPU and at this size, plain attention takes half the time of the fused kernel."""
        model.set_attn_processor(AttnProcessor())

    def mix(self, latents: Tensor, noise: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """v = a·noise − s·latents."""
        return self._schedule.mix(latents, noise, share)

    def predict(self, denoiser: Any, noisy: Tensor, share: Tensor, conditions: Conditions, **extra: Any) -> Tensor:
        """`extra`: sizes of the batch."""
        sizes = extra.pop("sizes", None)
        if sizes is None:
            sizes = usual_sizes(len(noisy)).to(noisy.device)
        added = {"text_embeds": conditions.pooled, "time_ids": sizes}
        sample: Tensor = denoiser(
            noisy, self._schedule.step(share), conditions.hidden, added_cond_kwargs=added, **extra
        ).sample
        return sample

    def extras(self, count: int, rng: random.Random) -> dict[str, Tensor]:
        """Other sizes now and then, so that an image of another size is not a surprise."""
        sizes = usual_sizes(count)
        for row in range(count):
            if rng.random() < _OTHER_SIZES_SHARE:
                edges = [rng.randrange(32, 1025, 8) for _ in range(4)]
                crop = [rng.randrange(64) for _ in range(2)]
                sizes[row] = torch.tensor([*edges[:2], *crop, *edges[2:]], dtype=torch.float32)
        return {"sizes": sizes}


def usual_sizes(count: int) -> Tensor:
    """Original size, crop and target size of a 64×64 image."""
    return torch.tensor([_USUAL_SIZES] * count)


RECIPE = SdxlRecipe()
