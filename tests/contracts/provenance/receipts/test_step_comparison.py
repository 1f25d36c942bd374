"""What is called the same: bytes on one machine, rounding alone across machines."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from contracts.provenance.receipts.step_comparison import differing, first_difference, is_within_error

PIXELS = np.random.default_rng(0).integers(20, 230, (40, 50, 3)).astype(np.int16)


def image(change: int = 0, share: float = 1.0) -> Image.Image:
    """The image, with some of its values changed by a number of levels."""
    pixels = PIXELS.copy().reshape(-1)
    pixels[: round(len(pixels) * share)] += change
    return Image.fromarray(pixels.reshape(PIXELS.shape).astype(np.uint8))


@pytest.mark.parametrize(
    ("dtype", "change", "share", "is_same"),
    [
        ("float32", 0, 1.0, True),
        ("float32", -1, 1.0, True),
        ("float32", 2, 0.001, False),
        ("bfloat16", 2, 1.0, True),
        ("bfloat16", 16, 0.005, True),
        ("bfloat16", 16, 0.02, False),
        ("float16", -3, 1.0, False),
        ("of a later release", 2, 1.0, False),
    ],
)
def test_images_differ_within_the_error_of_their_data_type(
    dtype: str, change: int, share: float, is_same: bool
) -> None:
    assert is_within_error(image(), image(change, share), dtype) is is_same


def test_images_of_other_sizes_are_never_the_same() -> None:
    assert not is_within_error(image(), image().resize((40, 40)), "bfloat16")


def test_only_what_changes_last_bits_explains_a_difference() -> None:
    claimed = {"device": "cpu", "dtype": "float32", "parameters": 1, "versions": {"torch": "1"}}
    assert differing(claimed, {**claimed, "parameters": 2}) == []
    assert differing(claimed, {**claimed, "device": "cuda:0", "versions": {}}) == ["device", "versions"]


@pytest.mark.parametrize(
    ("made", "steps", "found"),
    [
        (["a", "b", "c"], range(1, 4), None),
        (["a", "x", "y"], range(1, 4), 2),
        (["a", "x", "c"], [3], None),
        (["a", "b"], range(1, 4), 3),
        (["a", "b", "c", "d"], range(1, 5), 4),
        ([], [2], 2),
    ],
)
def test_the_first_step_that_differs_is_named(made: list[str], steps: list[int], found: int | None) -> None:
    assert first_difference(["a", "b", "c"], made, steps) == found
