"""A tiny untrained checkpoint, a few images to learn from, and trainings on them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from tests.support.untrained import sd15
from worker.sampling.previews import encode_distribution
from worker.training.examples import Example, Examples, make_examples, read_pixels


@pytest.fixture(scope="package")
def checkpoint() -> Any:
    """Stable Diffusion 1.5 with random weights."""
    return sd15.pipeline()


@pytest.fixture(scope="package")
def examples(checkpoint: Any) -> Examples:
    """Three images of two sizes with two captions, and two of the class."""
    return Examples(_examples(checkpoint, 3, seed=1), _examples(checkpoint, 2, seed=2))


def _examples(checkpoint: Any, count: int, seed: int) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    images = []
    for index in range(count):
        values = torch.rand(64 + 64 * (index % 2), 64, 3, generator=generator)
        image = Image.fromarray((values * 255).byte().numpy())
        images.append((read_pixels(image, 64), f"caption {index % 2}"))
    with torch.no_grad():
        return make_examples(
            images,
            lambda pixels: encode_distribution(checkpoint.vae, pixels),
            lambda text: {"prompt_embeds": checkpoint.encode_prompt([text], "cpu", 1, False)[0]},
        )
