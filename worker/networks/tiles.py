"""An image in overlapping tiles, so that a network needs bounded memory. Knows no networks and no jobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Tile:
    """A part of an image.

    Attributes:
        taken: left, upper, right and lower edge of what the network is given.
        kept: of what its output is for; the tiles' kept parts cover the image once.
    """

    taken: Box
    kept: Box


def tiles_of(width: int, height: int, side: int, overlap: int) -> Iterator[Tile]:
    """Yield the tiles of an image, row by row.

    Args:
        side: of the kept squares, in pixels.
        overlap: pixels around these that the network is given, too, where the image has them. Where that is at
            least what an output pixel depends on, the result is that of the whole image.
    """
    for upper in range(0, height, side):
        for left in range(0, width, side):
            right, lower = min(left + side, width), min(upper + side, height)
            taken = (
                max(0, left - overlap),
                max(0, upper - overlap),
                min(width, right + overlap),
                min(height, lower + overlap),
            )
            yield Tile(taken, (left, upper, right, lower))


def count_tiles(width: int, height: int, side: int) -> int:
    """How many tiles an image has."""
    return -(-width // side) * -(-height // side)
