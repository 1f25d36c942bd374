"""Pictures that clients of the service send in these tests."""

from __future__ import annotations

from PIL import Image, ImageDraw

SIDE = 64
#: The part of `hole` that is transparent: left, upper, right, lower, all inside.
HOLE = (16, 16, 47, 47)


def plain(colour: str) -> Image.Image:
    """One colour."""
    return Image.new("RGB", (SIDE, SIDE), colour)


def hole() -> Image.Image:
    """Opaque black around a transparent square."""
    mask = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 255))
    ImageDraw.Draw(mask).rectangle(HOLE, fill=(0, 0, 0, 0))
    return mask
