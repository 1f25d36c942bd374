"""FLUX: one CLIP for the pooled vector, T5 for the words, rectified flow on 2×2 packed latents.

The denoiser is trained plainly first. Then it learns, from itself, what guidance of any strength would have
made of a prompt; after that one call per step is enough, as in FLUX.1 [dev].
"""

import random
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor

from models.training.networks import architectures
from models.training.networks.attention import keep_plain
from models.training.recipes import Conditions, broadcast, read_ids, repad

#: The pipeline pads T5 to 512; training pads to this, and repeats the last pad now and then.
_T5_TOKENS = 32
#: The pipeline pads to 77; CLIP looks back only, so the vector at the end token is the same.
_CLIP_TOKENS = 32
_PLAIN_GUIDANCE = 1.0
#: Latents in a token.
_PATCH = 4


class FluxRecipe:
    """See `Recipe`."""

    latent_channels = 16
    texts = ("clip", "t5")
    guided = True
    noise_shift = 2.0
    empty_share = 0.03

    def parts(self, texts: dict[str, dict[str, Any]], denoiser: Any, vae: Any) -> dict[str, Any]:
        """T5 comes second."""
        return {
            "text_encoder": texts["clip"]["first"],
            "text_encoder_2": texts["t5"]["t5"],
            "transformer": denoiser,
            "vae": vae,
        }

    def encode(self, parts: dict[str, Any], words: Any, captions: list[str]) -> Conditions:
        """T5's last states, CLIP's pooled vector."""
        first, second = parts["text_encoder"], parts["text_encoder_2"]
        pooled = first(read_ids(words.clip, captions, _CLIP_TOKENS, first)).pooler_output
        t5 = second(read_ids(words.t5, captions, _T5_TOKENS, second)).last_hidden_state
        return Conditions(t5, pooled)

    def vary(self, conditions: Conditions, rng: random.Random) -> Conditions:
        """Changes T5's padding, for the whole batch."""
        return Conditions(repad(conditions.hidden, rng), conditions.pooled)

    def extras(self, count: int, rng: random.Random) -> dict[str, Tensor]:  # noqa: ARG002
        """Plain training is guidance 1."""
        return {"guidance": torch.full((count,), _PLAIN_GUIDANCE)}

    def build(self) -> Any:
        """Blocks that start as the identity."""
        transformer = architectures.build_flux()
        architectures.soften_transformer(transformer)
        return transformer

    def hasten(self, model: Any) -> None:
        """Half the time of the fused kernel, on a CPU."""
        keep_plain(model)

    def mix(self, latents: Tensor, noise: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """A straight line from image to noise."""
        part = broadcast(share, latents)
        return (1 - part) * latents + part * noise, noise - latents

    def predict(self, denoiser: Any, noisy: Tensor, share: Tensor, conditions: Conditions, **extra: Any) -> Tensor:
        """`extra`: guidance."""
        height, width = noisy.shape[-2:]
        tokens, places = self.arrange(noisy, extra)
        said = denoiser(
            hidden_states=tokens,
            timestep=share,
            encoder_hidden_states=conditions.hidden,
            pooled_projections=conditions.pooled,
            img_ids=places,
            txt_ids=torch.zeros(conditions.hidden.shape[1], 3, device=noisy.device),
            **extra,
        ).sample[:, : height * width // _PATCH]
        unpacked: Tensor = FluxPipeline._unpack_latents(said, height, width, vae_scale_factor=1)
        return unpacked

    def arrange(self, noisy: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """The tokens that the transformer reads, the noisy ones first, and their places."""
        return pack(noisy)


def pack(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Latents as tokens of 2×2, and the places of these."""
    count, _, height, width = latents.shape
    places = FluxPipeline._prepare_latent_image_ids(count, height // 2, width // 2, latents.device, torch.float32)
    return FluxPipeline._pack_latents(latents, *latents.shape), places


RECIPE = FluxRecipe()
