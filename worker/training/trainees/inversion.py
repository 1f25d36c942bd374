"""A textual inversion in training: vectors that the text encoders read where its word stands in a caption.

The encoders run in each step, past the cache of embeddings. Knows no files of other inversions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from contracts.weights.adapters.inversion_files import CLIP_L
from worker.training.examples import Embeddings, Example, encoded
from worker.training.files import to_safetensors
from worker.training.trainees.trainee import Trainee

#: Encodes a caption with vectors in the place of the word: (text encoder -> (vectors, width), caption).
EncodeCaption = Callable[[Mapping[str, torch.Tensor], str], Embeddings]
#: Name of a file's only tensor where the word cannot be one.
_ANY_NAME = "emb_params"


class InversionVectors(Trainee):
    """The vectors of one word."""

    def __init__(
        self,
        denoiser: Any,
        encoders: Mapping[str, tuple[str, torch.nn.Module]],
        word: str,
        start: Mapping[str, torch.Tensor],
        encode: EncodeCaption,
    ) -> None:
        """Begin with these vectors.

        Args:
            encoders: component -> its name in the file, and itself.
            start: component -> (vectors, width), on its device, in float32.
        """
        self._denoiser, self._word, self._encode = denoiser, word, encode
        self._parts = {name: part for name, (part, _) in encoders.items()}
        for module in (denoiser, *(encoder for _, encoder in encoders.values())):
            module.requires_grad_(False)  # nobody else asks for gradients
        self.parameters = {
            part: torch.nn.Parameter(start[name].detach().clone()) for name, part in self._parts.items()
        }

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """See `Trainee`; the denoiser recomputes activations in the backward pass."""
        self._denoiser.enable_gradient_checkpointing()
        try:
            yield
        finally:
            self._denoiser.disable_gradient_checkpointing()

    def read(self, rows: Sequence[Example]) -> Sequence[Example]:
        """See `Trainee`: each different caption is encoded once."""
        vectors = {name: self.parameters[part] for name, part in self._parts.items()}
        return encoded(rows, partial(self._encode, vectors))

    def file(self, facts: Mapping[str, str]) -> bytes:
        """See `Trainee`: `clip_l` and `clip_g`, or of one encoder a tensor under the word."""
        tensors = {part: parameter.detach() for part, parameter in self.parameters.items()}
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"the vectors {name} have values that are not finite")
        if tensors.keys() == {CLIP_L}:
            name = self._word if re.fullmatch(r"[\w-]+", self._word) else _ANY_NAME
            tensors = {name: tensors[CLIP_L]}
        return to_safetensors(tensors, {"format": "pt", **facts})


def first_vectors(encoder: Any, tokenizer: Any, text: str | None, count: int) -> torch.Tensor:
    """The vectors that training begins with: (count, width).

    Args:
        text: whose tokens they are, repeated or cut; None: each is the mean of the whole vocabulary.
    """
    table: torch.Tensor = encoder.get_input_embeddings().weight.detach().float()
    if text is None:
        return table.mean(0, keepdim=True).repeat(count, 1)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    return table[[tokens[index % len(tokens)] for index in range(count)]]
