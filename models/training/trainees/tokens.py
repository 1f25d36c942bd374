"""FLUX.1 Redux in training: diffusers' embedder of an image's patches, whose tokens follow those of the prompt.

The image encoder is frozen. An example without a reference image has no more tokens than its prompt.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from torch import Tensor, nn

from worker.training.examples import Example
from worker.training.trainees.trainee import Trainee

_SEQUENCE = "prompt_embeds"


class TrainedRedux(Trainee):
    """The two layers of Redux."""

    def __init__(self, transformer: Any, encoder: Any) -> None:
        """Args: encoder: a `SiglipVisionModel` that sees images of the examples' size."""
        transformer.requires_grad_(False)
        self._encoder = encoder.eval().requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self._embedder = ReduxImageEncoder(encoder.config.hidden_size, transformer.config.joint_attention_dim)
        self.parameters: Mapping[str, nn.Parameter] = dict(self._embedder.named_parameters())

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """See `Trainee`: nothing is put into the transformer."""
        yield

    def read(self, rows: Sequence[Example]) -> Sequence[Example]:
        """See `Trainee`: prompts are lengthened by their reference images' tokens."""
        shown = [row.control for row in rows if row.control is not None]
        if not shown:
            return rows
        tokens = iter(self._embedder(self._patches(torch.cat(shown))).image_embeds.split(1))
        return [row if row.control is None else _lengthened(row, next(tokens)) for row in rows]

    @torch.no_grad()
    def _patches(self, images: Tensor) -> Tensor:
        """The encoder's states of values 0 to 1, as its processor prepares images of this size."""
        states: Tensor = self._encoder((images - 0.5) / 0.5).last_hidden_state
        return states


def _lengthened(row: Example, tokens: Tensor) -> Example:
    words = row.embeddings[_SEQUENCE]
    return replace(row, embeddings={**row.embeddings, _SEQUENCE: torch.cat([words, tokens.to(words)], 1)})
