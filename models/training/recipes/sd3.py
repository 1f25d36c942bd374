"""SD3: two CLIPs that cannot see position or texture, a T5 that can, and rectified flow."""

import random
from typing import Any

import torch
from torch import Tensor

from models.training.networks import architectures
from models.training.networks.attention import keep_plain
from models.training.recipes import Conditions, broadcast, draw_kept, read_ids, repad

_CLIP_TOKENS = 77
#: The pipeline pads T5 to 256; training pads to this, and repeats the last pad now and then.
_T5_TOKENS = 32
_WITHOUT_T5_SHARE = 0.1


class Sd3Recipe:
    """See `Recipe`."""

    latent_channels = 16
    texts = ("blind-clip", "t5")
    guided = False
    noise_shift = 2.0
    empty_share = 0.03

    def parts(self, texts: dict[str, dict[str, Any]], denoiser: Any, vae: Any) -> dict[str, Any]:
        """T5 comes third."""
        clips = texts["blind-clip"]
        return {
            "text_encoder": clips["first"],
            "text_encoder_2": clips["second"],
            "text_encoder_3": texts["t5"]["t5"],
            "transformer": denoiser,
            "vae": vae,
        }

    def encode(self, parts: dict[str, Any], words: Any, captions: list[str]) -> Conditions:
        """Both CLIPs side by side, T5 behind them; both pooled vectors side by side."""
        first, second, third = (parts[f"text_encoder{end}"] for end in ("", "_2", "_3"))
        one = first(read_ids(words.clip, captions, _CLIP_TOKENS, first), output_hidden_states=True)
        two = second(read_ids(words.second_clip, captions, _CLIP_TOKENS, second), output_hidden_states=True)
        clips = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1)
        t5 = third(read_ids(words.t5, captions, _T5_TOKENS, third)).last_hidden_state
        return Conditions(torch.cat([clips, t5], 1), torch.cat([one.text_embeds, two.text_embeds], -1))

    def vary(self, conditions: Conditions, rng: random.Random) -> Conditions:
        """Leaves T5 out as the pipeline does, with zeros; and changes the padding of the whole batch."""
        kept = draw_kept(conditions, _WITHOUT_T5_SHARE, rng)
        clips, t5 = conditions.hidden[:, :_CLIP_TOKENS], conditions.hidden[:, _CLIP_TOKENS:]
        t5 = repad(t5 * broadcast(kept, t5), rng)
        if t5.shape[1] < _T5_TOKENS:
            clips = clips[:, : t5.shape[1]]
        return Conditions(torch.cat([clips, t5], 1), conditions.pooled)

    def extras(self, count: int, rng: random.Random) -> dict[str, Tensor]:  # noqa: ARG002
        """Nothing more."""
        return {}

    def build(self) -> Any:
        """Blocks that start as the identity."""
        transformer = architectures.build_sd3()
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
        """See `Recipe`; nothing more."""
        sample: Tensor = denoiser(
            hidden_states=noisy,
            timestep=share * 1000,
            encoder_hidden_states=conditions.hidden,
            pooled_projections=conditions.pooled,
            **extra,
        ).sample
        return sample


RECIPE = Sd3Recipe()
