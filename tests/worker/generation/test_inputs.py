"""Input images, masks and controls are brought to the output's size as the job's fit says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from contracts.requests.images.fit import Fit
from contracts.storage import Storage
from tests.support.images import encode_image
from tests.support.parameters import parameters
from worker.generation.inputs import decode_image, decode_mask, read_inputs


def wide_picture() -> Image.Image:
    """Four squares of 64 pixels in a row: red, green, blue, white."""
    picture = Image.new("RGB", (256, 64))
    for index, color in enumerate(("red", "lime", "blue", "white")):
        picture.paste(color, (index * 64, 0, index * 64 + 64, 64))
    return picture


def color_at(image: Image.Image, x: int, y: int) -> Any:
    return image.getpixel((x, y))


def test_cover_cuts_off_what_stands_out() -> None:
    image = decode_image(encode_image(wide_picture()), (128, 64), "cover")

    assert (color_at(image, 20, 32), color_at(image, 108, 32)) == ((0, 255, 0), (0, 0, 255))


@pytest.mark.parametrize("fit", ["pad", "contain"])
def test_pad_shows_the_whole_image_and_continues_its_edges(fit: Fit) -> None:
    image = decode_image(encode_image(wide_picture()), (64, 64), fit)

    assert color_at(image, 4, 32) == color_at(image, 4, 2) == color_at(image, 4, 61) == (255, 0, 0)
    assert color_at(image, 60, 32) == (255, 255, 255)


def test_stretch_shows_the_whole_image_in_another_aspect() -> None:
    image = decode_image(encode_image(wide_picture()), (64, 64), "stretch")

    assert (color_at(image, 4, 2), color_at(image, 60, 61)) == ((255, 0, 0), (255, 255, 255))


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch", "pad"])
def test_an_image_of_the_outputs_size_stays_as_it_is(fit: Fit) -> None:
    noise = Image.effect_noise((64, 48), 80).convert("RGB")

    assert decode_image(encode_image(noise), (64, 48), fit).tobytes() == noise.tobytes()
    assert decode_mask(encode_image(noise.convert("L")), (64, 48), fit).tobytes() == noise.convert("L").tobytes()


@pytest.mark.parametrize("fit", ["cover", "stretch", "pad"])
def test_the_mask_follows_its_image(fit: Fit) -> None:
    picture = wide_picture()
    mask = Image.new("L", picture.size, 0)
    mask.paste(255, (64, 0, 128, 64))  # what is green

    image, white = (
        decode_image(encode_image(picture), (64, 64), fit),
        decode_mask(encode_image(mask), (64, 64), fit),
    )

    pixels, levels = np.asarray(image), np.asarray(white)
    is_green = (pixels == (0, 255, 0)).all(axis=2)
    is_other = np.any([(pixels == color).all(axis=2) for color in ((255, 0, 0), (0, 0, 255), (255, 255, 255))], 0)
    inside = slice(24, 40) if fit == "pad" else slice(0, 64)
    assert levels[inside][is_green[inside]].min() == 255
    assert levels[inside][is_other[inside]].max() == 0
    if fit == "pad":  # what the image does not cover is generated
        assert levels[:20].min() == levels[44:].min() == 255


def test_a_line_as_thin_as_a_pixel_of_a_photo_is_still_white_in_a_small_output() -> None:
    mask = Image.new("L", (4000, 3000), 0)
    mask.putpixel((2000, 1500), 255)

    scaled = decode_mask(encode_image(mask), (64, 48), "cover")

    assert scaled.size == (64, 48)
    assert np.count_nonzero(np.asarray(scaled)) == 1
    assert color_at(scaled, 32, 24) == 255


def test_a_job_of_a_release_without_fit_is_stretched_as_it_was_then(storage: Storage) -> None:
    storage.write("inputs/wide.png", encode_image(wide_picture()))

    old, new = (
        read_inputs(parameters(image="inputs/wide.png", **fields), storage).image
        for fields in ({}, {"fit": "cover"})
    )

    assert old is not None
    assert new is not None
    assert color_at(old, 4, 32) == (255, 0, 0)
    assert color_at(new, 4, 32) != (255, 0, 0)
