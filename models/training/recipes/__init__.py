"""What differs between the families in training: how text conditions, how noise mixes, how a step is called.

A recipe knows its family's pipeline conventions and nothing of schedules, caches or files.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

import torch
from torch import Tensor

_LEAST_TOKENS = 28


@dataclass(frozen=True)
class Conditions:
    """A batch of encoded captions: a sequence each, and one pooled vector each."""

    hidden: Tensor
    pooled: Tensor

    def pick(self, rows: Sequence[int]) -> "Conditions":
        """Some of the batch, in float32."""
        index = torch.tensor(rows)
        return Conditions(self.hidden[index].float(), self.pooled[index].float())

    def halve(self) -> "Conditions":
        """Half the memory, for a cache."""
        return Conditions(self.hidden.half(), self.pooled.half())

    def to(self, device: torch.device) -> "Conditions":
        """The same on a device."""
        return Conditions(self.hidden.to(device), self.pooled.to(device))


class Recipe(Protocol):
    """One family. `share` is the part of noise in a sample, from 0 to 1."""

    latent_channels: int
    #: which sets of text encoders the family needs
    texts: tuple[str, ...]
    #: whether guidance is a number the denoiser is told, and has to learn
    guided: bool
    #: how far training leans towards much noise; 1 is evenly
    noise_shift: float
    #: of the samples, how many have the empty caption, from 0 to 1
    empty_share: float

    def parts(self, texts: dict[str, dict[str, Any]], denoiser: Any, vae: Any) -> dict[str, Any]:
        """The components under the names of the family's pipeline."""

    def encode(self, parts: dict[str, Any], words: Any, captions: list[str]) -> Conditions:
        """Captions to conditions, as the pipeline does it."""

    def vary(self, conditions: Conditions, rng: random.Random) -> Conditions:
        """Training only: leaves conditions out now and then, and changes what users change."""

    def build(self) -> Any:
        """A fresh denoiser, started the way that trains fastest."""

    def extras(self, count: int, rng: random.Random) -> dict[str, Tensor]:
        """Training only: further arguments of `predict` for a batch."""

    def hasten(self, model: Any) -> None:
        """Chooses what trains a denoiser fastest; changes no weight."""

    def mix(self, latents: Tensor, noise: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """The noisy latents and what the denoiser should say of them."""

    def predict(self, denoiser: Any, noisy: Tensor, share: Tensor, conditions: Conditions, **extra: Any) -> Tensor:
        """What the denoiser says. `extra` may hold sizes or guidance."""


def load_recipe(family: str) -> Recipe:
    """The module of the family; each defines `RECIPE`."""
    return cast("Recipe", import_module(f"models.training.recipes.{family}").RECIPE)


def broadcast(values: Tensor, like: Tensor) -> Tensor:
    """One value per sample, shaped to multiply samples."""
    return values.view(-1, *([1] * (like.ndim - 1)))


def read_ids(tokenizer: Any, captions: list[str], length: int, encoder: Any) -> Tensor:
    """Padded token ids, where the encoder is."""
    ids: Tensor = tokenizer(
        captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return ids.to(encoder.device)


def draw_kept(conditions: Conditions, dropped_share: float, rng: random.Random) -> Tensor:
    """Draw 1 (keep) or 0 (drop) for every sample, on the conditions' device."""
    kept = [float(rng.random() >= dropped_share) for _ in range(len(conditions.pooled))]
    return torch.tensor(kept, device=conditions.pooled.device)


def repad(hidden: Tensor, rng: random.Random) -> Tensor:
    """Encoder states as if padded less, mostly, or further, now and then: far pads are all alike.

    No caption of the grammar is longer than the least of these, and fewer tokens are faster.
    """
    length = hidden.shape[1]
    target = rng.choices((_LEAST_TOKENS, length, length + 32, length + 128), (0.8, 0.12, 0.06, 0.02))[0]
    return pad_to(hidden, target)


def pad_to(hidden: Tensor, length: int) -> Tensor:
    """Cuts states, or repeats the last of them, which is a pad's."""
    more = max(0, length - hidden.shape[1])
    return torch.cat([hidden[:, :length], hidden[:, -1:].expand(-1, more, -1)], 1)
