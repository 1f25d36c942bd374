"""The hash of an image's pixels, by which it is known in any file that keeps them all."""

from __future__ import annotations

import hashlib

from PIL import Image


def hash_pixels(image: Image.Image) -> str:
    """Return the SHA-256 of an image's values, 8 bits each, row by row, in hexadecimal.

    They are RGB, or RGBA where the image has a fourth channel.
    """
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return hashlib.sha256(image.convert(mode).tobytes()).hexdigest()
