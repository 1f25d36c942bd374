"""Fills what a mask selects with a smooth continuation of its surroundings, as a start for repainting it.

Pull-push: colors are averaged into ever smaller images, of which each fills the holes of the next larger one
(Gortler et al., "The Lumigraph", 1996, 4.2). Runs in the decoder's processes. Knows neither fields nor files.
"""

from __future__ import annotations

from PIL import Image, ImageOps

#: Where the mask selects everything, and there are no surroundings.
_GRAY = (127, 127, 127)


def fill_masked(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Return the image in RGB with other colors where the mask is white; where it is black, it is the same.

    Args:
        image: in any mode of 8 bits a channel.
        mask: mode L, of the same size.
    """
    opaque = image.convert("RGBA")
    opaque.putalpha(ImageOps.invert(mask))
    levels = [opaque.convert("RGBa")]  # averages are right for colors that are multiplied by their weights
    del opaque
    while max(levels[-1].size) > 1:
        levels.append(levels[-1].reduce(2))
    filled = Image.new("RGB", levels[-1].size, _GRAY)
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
