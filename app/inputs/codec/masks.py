"""Reads what a client drew as a mask: one channel, white where the image is to be regenerated.

Canvases export masks in many ways: white on black, any color on a transparent canvas, values 0 and 1. Runs in the
decoder's processes. Knows neither fields nor files.
"""

from __future__ import annotations

from typing import cast

from PIL import Image, ImageChops, ImageOps

#: Levels from which on a pixel counts as white, as diffusers' pipelines round masks.
WHITE = 128
#: Channels that differ by more make a color; by less, a gray.
_GRAY_LEVELS = 32
_WANTED = "white (128–255 of 255) where the image is to be regenerated, black elsewhere"


class EmptyMask(Exception):
    """A mask that would change no pixel: what was seen, and what is wanted."""


def read_drawn(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Return the mask that is drawn in an image: mode L, white = regenerate.

    Args:
        image: upright, of 8 bits a channel.

    Returns:
        The mask, and what was read as the mask, in words; None where it is simply the brightness.

    Raises:
        EmptyMask: nothing of it is white, and it cannot be understood in another way.
    """
    if not image.has_transparency_data:
        return _read_gray(image.convert("L"))
    canvas = image.convert("RGBA")
    alpha, gray = canvas.getchannel("A"), canvas.convert("RGB").convert("L")
    least, most = _extrema(alpha)
    if most == 0:
        raise EmptyMask(f"changes no pixel: it is transparent everywhere; draw {_WANTED}")
    if least >= WHITE or _is_black_and_white(
        canvas, alpha.point([255 * (level * 8 >= most) for level in range(256)])
    ):
        return _read_gray(ImageChops.multiply(gray, alpha))
    # A translucent brush means what an opaque one does.
    return alpha.point([round(level * 255 / most) for level in range(256)]), "what is drawn on transparent"


def read_hole(image: Image.Image) -> Image.Image:
    """Return the mask that is white where an image is transparent, as OpenAI's masks are read.

    Raises:
        EmptyMask: no part of it is transparent.
    """
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    least = 255 if alpha is None else _extrema(alpha)[0]
    if alpha is None or least >= WHITE:
        seen = "is opaque" if least == 255 else f"is at most {1 - least / 255:.0%} transparent"
        raise EmptyMask(
            "must have transparent pixels where the image is to be regenerated; "
            f"it {seen}, so it changes no pixel (POST /v1/inpaint takes masks in black and white)"
        )
    return ImageOps.invert(alpha)


def white_box(mask: Image.Image) -> tuple[int, int, int, int] | None:
    """Return the box around a mask's white: left, upper, right, lower; the last two exclusive. None if empty."""
    return mask.point([255 * (level >= WHITE) for level in range(256)]).getbbox()


def _read_gray(mask: Image.Image) -> tuple[Image.Image, str | None]:
    least, most = _extrema(mask)
    if most >= WHITE:
        return mask, None
    if most == 0:
        raise EmptyMask(f"changes no pixel: it is black everywhere; draw {_WANTED}")
    if least == most:
        raise EmptyMask(f"changes no pixel: it is gray {most} of 255 everywhere; draw {_WANTED}")
    levels = [level for level, count in enumerate(mask.histogram()) if count]
    if len(levels) == 2 and least == 0:
        return mask.point([255 * (level > 0) for level in range(256)]), f"values 0 and {most}"
    raise EmptyMask(f"changes no pixel: its brightest gray is {most} of 255; draw {_WANTED}")


def _is_black_and_white(canvas: Image.Image, drawn: Image.Image) -> bool:
    """Whether what is drawn on a transparent canvas is itself a mask: both black and white, and no other color."""
    red, green, blue, _ = canvas.split()
    colorfulness = ImageChops.lighter(ImageChops.difference(red, green), ImageChops.difference(green, blue))
    if any(colorfulness.histogram(drawn)[_GRAY_LEVELS:]):
        return False
    levels = canvas.convert("RGB").convert("L").histogram(drawn)
    return any(levels[:WHITE]) and any(levels[WHITE:])


def _extrema(mask: Image.Image) -> tuple[int, int]:
    return cast("tuple[int, int]", mask.getextrema())
