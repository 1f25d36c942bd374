"""An IP-Adapter of a UNet in training: diffusers' own layers, and the names of the original release's files.

The image encoder is frozen. An example without a reference image is one without a prompt, as a guided call has it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor, IPAdapterAttnProcessor
from diffusers.models.embeddings import ImageProjection
from torch import Tensor, nn
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from worker.adapters.references.image_prompts import cross_attentions
from worker.training.examples import Example
from worker.training.trainees.trainee import Trainee

#: Of one image, in files of the plain kind.
_TOKENS = 4


class TrainedIpAdapter(Trainee):
    """The projection of an image's vector to tokens, and their keys and values in each cross-attention layer."""

    def __init__(self, unet: Any, encoder: Any) -> None:
        """Keys and values begin as those of the text, as in the original release's training.

        Args:
            encoder: a `CLIPVisionModelWithProjection` that sees images of the examples' size.
        """
        self._unet, self._encoder = unet.requires_grad_(False), encoder.eval().requires_grad_(False)
        width = unet.config.cross_attention_dim
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self._projection = ImageProjection(encoder.config.projection_dim, width, _TOKENS)
        self._processors: dict[str, Any] = {name: AttnProcessor() for name in unet.attn_processors}
        named: dict[str, nn.Parameter] = {
            f"image_proj.{name.replace('image_embeds', 'proj')}": value
            for name, value in self._projection.named_parameters()
        }
        for index, (name, layer) in enumerate(cross_attentions(unet).items()):
            processor = IPAdapterAttnProcessor(layer.to_q.out_features, width, (_TOKENS,))
            self._processors[f"{name}.processor"] = processor
            for half, own, text in (
                ("k", processor.to_k_ip[0], layer.to_k),
                ("v", processor.to_v_ip[0], layer.to_v),
            ):
                own.weight.data.copy_(text.weight)
                named[f"ip_adapter.{2 * index + 1}.to_{half}_ip.weight"] = own.weight
        self.parameters: Mapping[str, nn.Parameter] = named

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """See `Trainee`."""
        before = self._unet.attn_processors
        self._unet.set_attn_processor(dict(self._processors))
        try:
            yield
        finally:
            self._unet.set_attn_processor(before)

    def steered(self, denoiser: Any, rows: Sequence[Example]) -> Callable[..., Any]:
        """See `Trainee`: the reference images' tokens go beside the text's."""
        shown = torch.tensor([float(row.control is not None) for row in rows])
        tokens = self._projection(self._embed(rows) * shown[:, None])

        def call(
            latents: Tensor, timesteps: Tensor, words: Tensor, added_cond_kwargs: Mapping[str, Tensor], **more: Any
        ) -> Any:
            added = {**added_cond_kwargs, "text_embeds": added_cond_kwargs["text_embeds"] * shown[:, None]}
            both = (words * shown[:, None, None], [tokens])
            return denoiser(latents, timesteps, both, added_cond_kwargs=added, **more)

        return call

    @torch.no_grad()
    def _embed(self, rows: Sequence[Example]) -> Tensor:
        """The image encoder's vectors, (rows, width), as its processor prepares images of this size."""
        side = self._encoder.config.image_size
        empty = torch.zeros(1, 3, side, side)
        pixels = torch.cat([empty if row.control is None else row.control for row in rows])
        mean, spread = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        embedding: Tensor = self._encoder((pixels - mean) / spread).image_embeds
        return embedding
