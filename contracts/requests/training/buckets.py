"""The size at which a training image is read. Pure."""

from __future__ import annotations

import math

#: Sides of large images are multiples of the first, since UNets halve latents, an eighth of the side, three times;
#: of small ones of the second, since a token of some transformers is 16 pixels wide.
_LARGE_MULTIPLE, _SMALL_MULTIPLE = 64, 16
_LARGE_SIDE = 256
#: Longest side, as a multiple of the other.
_MAX_RATIO = 2.0


def bucket(width: int, height: int, resolution: int) -> tuple[int, int]:
    """Return the width and height at which an image is read: near its ratio, with about a square's pixels.

    Args:
        resolution: side of the square, in pixels.
    """
    multiple = _LARGE_MULTIPLE if resolution >= _LARGE_SIDE else _SMALL_MULTIPLE
    ratio = min(_MAX_RATIO, max(1 / _MAX_RATIO, width / height))
    wide = max(multiple, round(resolution * math.sqrt(ratio) / multiple) * multiple)
    high = max(multiple, resolution * resolution // wide // multiple * multiple)
    return wide, high
