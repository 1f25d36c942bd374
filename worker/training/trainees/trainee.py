"""What a training changes: the values that learn, how the model runs with them, and the file that they become."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from worker.training.examples import Example
from worker.training.files import half_precision, to_safetensors


class Trainee(ABC):
    """Values that learn, in float32.

    Attributes:
        parameters: these, by their names in checkpoints.
    """

    parameters: Mapping[str, torch.nn.Parameter]

    @abstractmethod
    def in_place(self) -> AbstractContextManager[None]:
        """Inside, the denoiser runs with them; after it, the model is what it was."""

    def read(self, rows: Sequence[Example]) -> Sequence[Example]:
        """Return examples with the embeddings that the denoiser is given in this step."""
        return rows

    def steered(self, denoiser: Any, rows: Sequence[Example]) -> Any:
        """Return what is called in the denoiser's place for these rows: itself, unless something steers it."""
        del rows
        return denoiser

    def file(self, facts: Mapping[str, str]) -> bytes:
        """The safetensors file that they are now: unless it is of another layout, they by their names, in float16.

        Args:
            facts: of the training, for its metadata.

        Raises:
            ValueError: a value is not finite.
        """
        tensors = {name: parameter.detach() for name, parameter in self.parameters.items()}
        return to_safetensors(half_precision(tensors), {"format": "pt", **facts})
