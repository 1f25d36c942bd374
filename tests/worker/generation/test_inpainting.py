"""Inpainting: crops around the mask, and its soft edge."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from worker.generation import inpainting


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.int16)


def _square_mask() -> Image.Image:
    mask = Image.new("L", (32, 32), 0)
    ImageDraw.Draw(mask).rectangle((8, 8, 23, 23), fill=255)
    return mask


def test_a_mask_without_blur_is_unchanged() -> None:
    assert np.array_equal(_pixels(inpainting.soften(_square_mask(), 0)), _pixels(_square_mask()))


def test_a_blurred_mask_rises_inwards_and_leaves_the_outside_black() -> None:
    soft = _pixels(inpainting.soften(_square_mask(), 4))
    assert soft[_pixels(_square_mask()) == 0].max() == 0
    rise = list(soft[16, 8:14])
    assert rise == sorted(set(rise))
    assert rise[0] < 64
    assert soft[16, 16] == 255


@pytest.mark.parametrize("level", [inpainting.WHITE, 255])
@pytest.mark.parametrize("background", [0, 5])
@pytest.mark.parametrize("box", [(5, 5, 5, 5), (0, 16, 31, 16), (9, 9, 10, 12)])
def test_a_mask_thinner_than_its_blur_stays_as_white_inside_as_it_is(
    box: tuple[int, int, int, int], background: int, level: int
) -> None:
    mask = Image.new("L", (32, 32), background)
    ImageDraw.Draw(mask).rectangle(box, fill=level)
    for blur in (1, 4, 64):
        assert _pixels(inpainting.soften(mask, blur)).max() == level


@pytest.mark.parametrize("size", [(64, 64), (72, 40), (68, 60)])
def test_a_pipeline_samples_white_of_every_mask_that_has_some(size: tuple[int, int]) -> None:
    for x, y in ((5, 5), (size[0] - 1, size[1] - 1), (31, 33)):
        mask = Image.new("L", size, 0)
        mask.putpixel((x, y), inpainting.WHITE)
        widened = _pixels(inpainting.reach_latents(mask))
        assert widened.shape == _pixels(mask).shape
        assert widened[::8, ::8].max() == inpainting.WHITE
        assert (widened >= inpainting.WHITE).sum() <= 64
        assert widened[y, x] == inpainting.WHITE


def test_a_mask_of_which_a_pipeline_samples_white_is_not_widened() -> None:
    assert inpainting.reach_latents(_square_mask()) == _square_mask()


def test_a_gray_pixel_is_still_white_in_a_crop() -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.putpixel((40, 20), inpainting.WHITE)
    for padding in (0, 3, 8):
        box = inpainting.find_crop(mask, padding)
        assert box is not None
        assert _pixels(inpainting.enlarge(mask, box)).max() == inpainting.WHITE


def test_a_mask_that_reaches_the_border_is_not_softened_there() -> None:
    assert _pixels(inpainting.soften(Image.new("L", (16, 16), 255), 8)).min() == 255


def test_the_crop_contains_the_mask_and_its_padding_and_has_the_images_aspect_ratio() -> None:
    mask = Image.new("L", (128, 64), 0)
    ImageDraw.Draw(mask).rectangle((100, 20, 119, 29), fill=255)
    left, upper, right, lower = inpainting.find_crop(mask, 4) or (0, 0, 0, 0)
    assert left <= 100 - 4
    assert right >= min(128, 120 + 4)
    assert upper <= 20 - 4
    assert lower >= 30 + 4
    assert (right - left) * 64 == (lower - upper) * 128
    assert inpainting.find_crop(mask, None) is None
    assert inpainting.find_crop(Image.new("L", (64, 64), 0), 4) is None
    assert inpainting.find_crop(mask, 512) == (0, 0, 128, 64)


def test_a_crop_is_pasted_back_where_it_was() -> None:
    original = Image.new("RGB", (64, 64), "blue")
    whole = inpainting.paste_back(Image.new("RGB", (64, 64), "red"), original, (16, 16, 48, 48))
    assert whole.getpixel((15, 20)) == (0, 0, 255)
    assert whole.getpixel((16, 20)) == (255, 0, 0)
    assert inpainting.enlarge(whole, (16, 16, 48, 48)).getpixel((8, 8)) == (255, 0, 0)
