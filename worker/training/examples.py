"""What a training learns from: images as latents, captions as embeddings, each computed once.

Which images a step learns from, and all that it draws, follow from the seed and the step's number alone, so that a
training that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from contracts.requests.training.buckets import bucket

#: Argument of the denoiser, as `PromptEncoder.encode` names it -> tensor (1, …).
Embeddings = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Pixels:
    """An image as the model reads it.

    Attributes:
        values: (1, 3, height, width) from -1 to 1.
        original_size: (height, width) of the image as it came.
        crop: (top, left) of what was cut off after scaling.
    """

    values: torch.Tensor
    original_size: tuple[int, int]
    crop: tuple[int, int]


@dataclass(frozen=True)
class Example:
    """An image and its caption as the denoiser is given them.

    Attributes:
        mean, spread: of the VAE's distribution of latents, in the denoiser's scale: (1, channels, height, width).
        size: (height, width) in pixels, as it is read.
        original_size, crop: as in `Pixels`.
        caption: what the embeddings are of.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    embeddings: Embeddings
    size: tuple[int, int]
    original_size: tuple[int, int]
    crop: tuple[int, int]
    caption: str = ""

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        """Draw latents from the VAE's distribution."""
        return self.mean + self.spread * torch.randn(self.mean.shape, generator=generator)


@dataclass(frozen=True)
class Examples:
    """All examples of a training.

    Attributes:
        subject: at least one.
        prior: of the class that the subject belongs to, which the model is to keep; may be empty.
    """

    subject: Sequence[Example]
    prior: Sequence[Example] = ()


def read_pixels(image: Image.Image, resolution: int) -> Pixels:
    """Scale an image to its bucket, and cut off what is beyond it on both sides."""
    image = image.convert("RGB")
    wide, high = bucket(*image.size, resolution)
    scale = max(wide / image.width, high / image.height)
    size = (max(wide, round(image.width * scale)), max(high, round(image.height * scale)))
    left, top = (size[0] - wide) // 2, (size[1] - high) // 2
    scaled = image.resize(size, Image.Resampling.LANCZOS).crop((left, top, left + wide, top + high))
    values = torch.from_numpy(np.array(scaled)).permute(2, 0, 1)[None].float() / 127.5 - 1
    return Pixels(values, (image.height, image.width), (top, left))


def make_examples(
    images: Iterable[tuple[Pixels, str]],
    encode_image: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    encode_text: Callable[[str], Embeddings],
) -> list[Example]:
    """Encode images and captions, each different caption once.

    Args:
        encode_image: (1, 3, height, width) -> mean and spread of its latents.
    """
    known: dict[str, Embeddings] = {}
    examples = []
    for pixels, caption in images:
        if caption not in known:
            known[caption] = encode_text(caption)
        mean, spread = encode_image(pixels.values)
        height, width = pixels.values.shape[-2:]
        size = (int(height), int(width))
        examples.append(Example(mean, spread, known[caption], size, pixels.original_size, pixels.crop, caption))
    return examples


def pick(count: int, batch: int, step: int, seed: int, kind: str) -> list[int]:
    """Which of `count` examples a step learns from: each once before any comes again.

    Args:
        step: from 0.
        kind: of examples, each of which has an order of its own.
    """
    chosen = []
    for number in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(number, count)
        order = list(range(count))
        random.Random(_number(seed, kind, epoch)).shuffle(order)
        chosen.append(order[place])
    return chosen


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of everything else that a step draws."""
    return torch.Generator().manual_seed(_number(seed, "noise", step))


def _number(seed: int, kind: str, index: int) -> int:
    digest = hashlib.sha256(f"{seed} {kind} {index}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
