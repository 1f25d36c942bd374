"""Fills what a mask selects with a smooth continuation of its surroundings, as a start for repainting it.

Pull-push: colors are averaged into ever smaller images, and each fills the holes of the next larger one
(Gortler et al., "The Lumigraph", 1996, 4.2). Runs in the decoder's processes. Knows neither fields nor files.
"""

from __future__ import annotations

from PIL import Image, ImageOps

from app.inputs.codec.limits import TooLarge

#: Where the mask selects everything, and there are no surroundings.
_GRAY = (127, 127, 127)
#: Pixels of an image that is filled at most: it takes 25 bytes a pixel, six times as much as decoding it.
_MAX_PIXELS = 12_000_000


def fill_masked(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Return the image in RGB with other colors where the mask is white; where it is black, it is the same.

    Args:
        image: in any mode of 8 bits a channel.
        mask: mode L, of the same size.

    Raises:
        TooLarge: it would take too much memory.
    """
    if image.width * image.height > _MAX_PIXELS:
        message = (
            f"has {image.width} × {image.height} pixels, and masked parts are filled from their surroundings in "
            f"images of up to {_MAX_PIXELS} only; scale it down, or let them start from the image itself"
        )
        raise TooLarge(message, f"width × height ≤ {_MAX_PIXELS}")
    opaque = image.convert("RGBA")
    opaque.putalpha(ImageOps.invert(mask))
    levels = [opaque.convert("RGBa")]  # averages are right for colors that are multiplied by their weights
    del opaque
    while max(levels[-1].size) > 1:
        levels.append(levels[-1].reduce(2))
    average = levels.pop()  # of everything that is not masked, in one pixel
    is_empty = average.getchannel("a").getextrema() == (0, 0)
    filled = Image.new("RGB", (1, 1), _GRAY) if is_empty else average.convert("RGBA").convert("RGB")
    while levels:
        level = levels.pop()
        beneath = filled.resize(level.size, Image.Resampling.BILINEAR).convert("RGBA")
        filled = Image.alpha_composite(beneath, level.convert("RGBA")).convert("RGB")
    return filled


def join_files(first: bytes, second: bytes) -> bytes:
    """Two files in one piece, as the decoder's processes get them."""
    return len(first).to_bytes(8) + first + second


def split_files(data: bytes) -> tuple[bytes, bytes]:
    """The files in a piece from `join_files`."""
    end = 8 + int.from_bytes(data[:8])
    return data[8:end], data[end:]
