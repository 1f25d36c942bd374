"""What a training learns from: images as latents, captions as embeddings, each computed once; control images.

Which images a step learns from, and all that it draws, follow from the seed and the step's number alone, so that a
training that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

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
        hint: its control image, (1, 3, height, width) from 0 to 255 in bytes; None without one.
    """

    values: torch.Tensor
    original_size: tuple[int, int]
    crop: tuple[int, int]
    hint: torch.Tensor | None = None


@dataclass(frozen=True)
class Example:
    """An image and its caption as the denoiser is given them.

    Attributes:
        mean, spread: of the VAE's distribution of latents, in the denoiser's scale: (1, channels, height, width).
        size: (height, width) in pixels, as it is read.
        original_size, crop: as in `Pixels`.
        caption: what the embeddings are of.
        control: what its ControlNet is to read of its control image, as `TrainedControlNet.read_control` says.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    embeddings: Embeddings
    size: tuple[int, int]
    original_size: tuple[int, int]
    crop: tuple[int, int]
    caption: str = ""
    control: torch.Tensor | None = None

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


def read_pixels(image: Image.Image, resolution: int, control: Image.Image | None = None) -> Pixels:
    """Scale an image to its bucket, and cut off what is beyond it on both sides; its control image likewise.

    Args:
        control: of the image's size.
    """
    wide, high = bucket(*image.size, resolution)
    scale = max(wide / image.width, high / image.height)
    size = (max(wide, round(image.width * scale)), max(high, round(image.height * scale)))
    left, top = (size[0] - wide) // 2, (size[1] - high) // 2

    # Only the part that is kept is scaled: the whole of a long, narrow image would take any amount of memory.
    across, down = image.width / size[0], image.height / size[1]
    right, bottom = min(image.width, (left + wide) * across), min(image.height, (top + high) * down)
    box = (left * across, top * down, right, bottom)

    def scaled(whole: Image.Image) -> torch.Tensor:
        part = whole.convert("RGB").resize((wide, high), Image.Resampling.LANCZOS, box)
        return torch.from_numpy(np.array(part)).permute(2, 0, 1)[None]

    hint = None if control is None else scaled(control)
    return Pixels(scaled(image).float() / 127.5 - 1, (image.height, image.width), (top, left), hint)


def make_examples(
    images: Iterable[tuple[Pixels, str]],
    encode_image: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    encode_text: Callable[[str], Embeddings],
    read_control: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> list[Example]:
    """Encode images and captions, each different caption once. Latents are kept in host memory.

    Args:
        encode_image: (1, 3, height, width) -> mean and spread of its latents.
        read_control: of an image with a control image, `Pixels.hint` -> `Example.control`.
    """
    known: dict[str, Embeddings] = {}
    examples = []
    for pixels, caption in images:
        if caption not in known:
            known[caption] = encode_text(caption)
        mean, spread = (latents.cpu() for latents in encode_image(pixels.values))
        control = None if pixels.hint is None or read_control is None else read_control(pixels.hint)
        height, width = pixels.values.shape[-2:]
        size = (int(height), int(width))
        read = (size, pixels.original_size, pixels.crop)
        examples.append(Example(mean, spread, known[caption], *read, caption, control))
    return examples


def encoded(rows: Sequence[Example], encode: Callable[[str], Embeddings]) -> list[Example]:
    """Rows with new embeddings; each different caption is encoded once."""
    known = {caption: encode(caption) for caption in dict.fromkeys(row.caption for row in rows)}
    return [replace(row, embeddings=known[row.caption]) for row in rows]


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
