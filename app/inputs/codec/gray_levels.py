"""Grays of more than 8 bits as 8 bits. Runs in the decoder's processes. Knows no files."""

from __future__ import annotations

from typing import cast

from PIL import Image

#: Pixels that are converted at a time.
_STRIP_PIXELS = 2**20


def to_eight_bits(image: Image.Image, *, is_mask: bool) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point gray to 0–255 without clipping.

    Modes I and F do not define white: it is the smallest usual full scale that covers the image. Neither do masks
    of 16 bits, into which programs write 0 and 1, or 0 and 255.
    """
    is_short = image.mode.startswith("I;16")
    if is_short:
        is_byte = is_mask and cast("float", image.getextrema()[1]) <= 255
        white = 255.0 if is_byte else 65_535.0
    else:
        high = cast("float", image.getextrema()[1])
        usual = (1.0, 255.0, 65_535.0) if image.mode == "F" else (255.0, 65_535.0)
        white = next((scale for scale in usual if high <= scale), high)
    factor = 255.0 / white
    result, (width, height) = Image.new("L", image.size), image.size
    rows = max(1, _STRIP_PIXELS // width)
    # The wider copies exist one strip at a time: of the whole image they would take eleven bytes a pixel.
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        strip = strip.convert("I") if is_short else strip
        result.paste(strip.point(lambda value: value * factor + 0.5).convert("L"), (0, top))
    return result
