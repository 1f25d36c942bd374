"""Which size an image is read at, and which images a step learns from."""

from __future__ import annotations

import pytest
from PIL import Image

from contracts.requests.training.buckets import bucket
from tests.support.counting_device import DeviceTensor
from worker.training.examples import make_examples, pick, read_pixels, step_generator


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [
        ((1024, 1024), 1024, (1024, 1024)),
        ((100, 100), 512, (512, 512)),
        ((1600, 1200), 1024, (1152, 896)),
        ((1200, 1600), 1024, (896, 1152)),
        ((9000, 100), 512, (704, 320)),
        ((64, 64), 64, (64, 64)),
    ],
)
def test_an_image_is_read_near_its_aspect(
    size: tuple[int, int], resolution: int, expected: tuple[int, int]
) -> None:
    assert bucket(*size, resolution) == expected


@pytest.mark.parametrize("size", [(1, 1), (3000, 7), (513, 511), (1, 60_000)])  # as a whole 13 GB of values
def test_an_image_of_any_size_fills_its_bucket(size: tuple[int, int]) -> None:
    pixels = read_pixels(Image.new("RGB", size, "red"), 256)
    wide, high = bucket(*size, 256)
    assert tuple(pixels.values.shape) == (1, 3, high, wide)
    assert pixels.values.abs().max() <= 1
    assert pixels.original_size == size[::-1]


def test_each_image_is_learnt_from_once_before_any_comes_again() -> None:
    picked = [index for step in range(5) for index in pick(5, 2, step, seed=3, kind="subject")]
    assert sorted(picked[:5]) == sorted(picked[5:]) == list(range(5))
    assert picked != [index for step in range(5) for index in pick(5, 2, step, seed=4, kind="subject")]


def test_latents_of_examples_are_in_host_memory_where_steps_draw_noise_for_them() -> None:
    (example,) = make_examples(
        [(read_pixels(Image.new("RGB", (64, 64)), 64), "a caption")],
        lambda pixels: (DeviceTensor(pixels), DeviceTensor(pixels)),
        lambda _: {},
    )
    assert example.draw(step_generator(1, 1)).device.type == "cpu"
