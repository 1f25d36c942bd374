"""Masks as canvases and programs write them: understood, or refused with what was seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from app.inputs.codec.decode import decode_alpha_mask, decode_mask, decode_with_hole
from app.inputs.codec.limits import Limits
from app.inputs.codec.masks import EmptyMask
from tests.support.images import encode_image, encode_solid, mask_with_hole, open_png, solid_image

LIMITS = Limits(max_bytes=2**20, max_side=4096, max_pixels=1_000_000, max_decoded_bytes=4_000_000)
BOX = (16, 12, 47, 35)
DRAWN = Image.new("L", (64, 48), 0)
ImageDraw.Draw(DRAWN).rectangle(BOX, fill=255)


def on_canvas(*color: int) -> Image.Image:
    """A rectangle of one color on a transparent canvas."""
    canvas = Image.new("RGBA", DRAWN.size)
    ImageDraw.Draw(canvas).rectangle(BOX, fill=color)
    return canvas


def levels(mask: Image.Image, white: int) -> Image.Image:
    return mask.point([white * (level > 0) for level in range(256)])


def of_16_bits(white: int) -> Image.Image:
    return Image.fromarray((np.asarray(DRAWN) > 0).astype(np.uint16) * white)


def palette() -> Image.Image:
    image = Image.new("P", DRAWN.size, 0)
    image.putpalette([0, 0, 0, 1, 1, 1])
    ImageDraw.Draw(image).rectangle(BOX, fill=1)
    return image


def painted(background: tuple[int, int, int, int], color: tuple[int, int, int, int]) -> Image.Image:
    canvas = Image.new("RGBA", DRAWN.size, background)
    canvas.paste(color, (BOX[0], BOX[1], BOX[2] + 1, BOX[3] + 1))
    return canvas


def two_strokes() -> Image.Image:
    """What is drawn on a transparent canvas in white, and taken back in black."""
    canvas = on_canvas(255, 255, 255, 255)
    ImageDraw.Draw(canvas).rectangle((0, 40, 63, 47), fill=(0, 0, 0, 255))
    return canvas


@pytest.mark.parametrize(
    "image",
    [
        DRAWN,
        DRAWN.convert("1"),
        DRAWN.convert("P"),
        DRAWN.convert("RGB"),
        DRAWN.convert("RGBA"),
        levels(DRAWN, 1),
        levels(DRAWN, 1).convert("RGB"),
        levels(DRAWN, 1).convert("RGBA"),
        levels(DRAWN, 100),
        palette(),
        of_16_bits(1),
        of_16_bits(255),
        of_16_bits(65_535),
        on_canvas(0, 0, 0, 255),
        on_canvas(255, 255, 255, 255),
        on_canvas(200, 30, 40, 255),
        on_canvas(255, 255, 0, 255),
        on_canvas(0, 0, 0, 100),
        on_canvas(255, 0, 0, 128),
        two_strokes(),
        painted((0, 0, 0, 255), (255, 255, 255, 255)),
        painted((0, 0, 0, 100), (255, 255, 255, 255)),  # an overlay that darkens what is kept
    ],
)
def test_every_way_to_draw_the_same_mask_gives_the_same_mask(image: Image.Image) -> None:
    decoded = decode_mask(encode_image(image), LIMITS)

    mask = open_png(decoded.data)
    assert mask.mode in ("L", "1")
    assert mask.convert("L").tobytes() == DRAWN.tobytes()
    assert decoded.white == (BOX[0], BOX[1], BOX[2] + 1, BOX[3] + 1)


def test_strokes_of_several_colors_on_a_canvas_all_count() -> None:
    canvas = on_canvas(0, 0, 90, 255)
    ImageDraw.Draw(canvas).rectangle((0, 0, 7, 7), fill=(255, 255, 0, 255))

    mask = open_png(decode_mask(encode_image(canvas), LIMITS).data)

    assert mask.getpixel((3, 3)) == 255
    assert mask.getpixel((20, 20)) == 255
    assert mask.getpixel((60, 3)) == 0


def test_a_soft_mask_keeps_its_grays_and_a_mask_that_was_read_is_read_as_itself() -> None:
    soft = Image.linear_gradient("L").resize((64, 64))

    once = decode_mask(encode_image(soft), LIMITS).data

    assert open_png(once).tobytes() == soft.tobytes()
    assert decode_mask(once, LIMITS).data == once


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        (Image.new("L", (64, 48), 0), "it is black everywhere"),
        (Image.new("1", (64, 48), 0), "it is black everywhere"),
        (Image.new("RGB", (64, 48), (0, 0, 0)), "it is black everywhere"),
        (Image.new("L", (64, 48), 1), "it is gray 1 of 255 everywhere"),
        (Image.new("L", (64, 48), 127), "it is gray 127 of 255 everywhere"),
        (Image.linear_gradient("L").point(lambda level: level // 3), "its brightest gray is 85 of 255"),
        (Image.new("RGBA", (64, 48), (255, 255, 255, 0)), "it is transparent everywhere"),
        (of_16_bits(30_000).point(lambda level: level * 0 + 20_000), "it is gray 78 of 255 everywhere"),
    ],
)
def test_a_mask_that_changes_no_pixel_is_refused_with_what_was_seen(image: Image.Image, seen: str) -> None:
    with pytest.raises(EmptyMask, match=f"changes no pixel: .*{seen}") as caught:
        decode_mask(encode_image(image), LIMITS)

    assert "where the image is to be regenerated" in str(caught.value)


@pytest.mark.parametrize("level", [128, 255])
def test_all_white_is_a_mask(level: int) -> None:
    assert decode_mask(encode_solid("L", (64, 48), level), LIMITS).white == (0, 0, 64, 48)


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        (solid_image("red"), "it is opaque"),
        (DRAWN, "it is opaque"),
        (on_canvas(0, 0, 0, 255).convert("RGB"), "it is opaque"),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 204)), "at most 20% transparent"),
    ],
)
def test_a_mask_without_a_hole_is_refused_where_the_hole_is_the_mask(image: Image.Image, seen: str) -> None:
    with pytest.raises(EmptyMask, match=seen):
        decode_alpha_mask(encode_image(image), LIMITS)


def test_an_image_comes_with_the_mask_of_its_hole() -> None:
    with_hole = decode_with_hole(encode_image(mask_with_hole()), LIMITS)
    opaque = decode_with_hole(encode_image(solid_image("red")), LIMITS)

    pixel: Any = open_png(with_hole.hole).getpixel
    assert (pixel((32, 32)), pixel((2, 2))) == (255, 0)
    assert (opaque.hole, opaque.white) == (b"", None)
