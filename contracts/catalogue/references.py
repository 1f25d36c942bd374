"""What the reference images of an edit are to a model family, and at which sizes it reads them. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Sides of scaled references are multiples of it, in pixels.
_SCALED_MULTIPLE = 32
#: Pixels of a patch that an image encoder makes one token of.
_TOKEN_PIXELS = 28 * 28
#: Of the prompt's template beside each: `Picture 1: `, the image's start and end.
_TOKENS_AROUND = 8


@dataclass(frozen=True)
class References:
    """The use that a family makes of an edit's reference images; each is read at a size of its own.

    Attributes:
        max_count: how many one request may have.
        meaning: what they are for, in one sentence, for clients.
        scaled_pixels: area in pixels that the pipelines scale each to; None: it is read at its own size.
        seen_pixels: area in pixels at which the text encoder sees each; 0: it reads texts only.
        max_pixels: of one that is not scaled; None: as many as an image may have.
        max_aspect: of the longer side to the shorter; None: any.
        max_with_mask: how many a request with a mask may have; None: as others.
        beside_image: whether, in a request with a mask, the image itself is a further reference.
        fits_output: whether each is brought to the output's size, as an image to start from is.
    """

    max_count: int
    meaning: str
    scaled_pixels: int | None = None
    seen_pixels: int = 0
    max_pixels: int | None = None
    max_aspect: int | None = None
    max_with_mask: int | None = None
    beside_image: bool = False
    fits_output: bool = False

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Return the size that the pipelines scale a reference to; its own where they do not."""
        return (width, height) if self.scaled_pixels is None else _sides(self.scaled_pixels, width / height)

    def tokens_of(self, width: int, height: int, *, as_it_is: bool = False) -> int:
        """Return the tokens that the text encoder reads of a reference of this size, with those around it.

        Args:
            as_it_is: whether it is not scaled.
        """
        if not self.seen_pixels:
            return 0
        sides = (width, height) if as_it_is else _sides(self.seen_pixels, width / height)
        return math.prod(sides) // _TOKEN_PIXELS + _TOKENS_AROUND


def _sides(area: int, ratio: float) -> tuple[int, int]:
    """Sides of about this area, as diffusers' pipelines choose them (`calculate_dimensions`)."""
    width = math.sqrt(area * ratio)
    height = width / ratio
    return (
        round(width / _SCALED_MULTIPLE) * _SCALED_MULTIPLE,
        round(height / _SCALED_MULTIPLE) * _SCALED_MULTIPLE,
    )
