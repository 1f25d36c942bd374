"""The size of a job's images: what the client asks for, else what follows from its input image and the model.

Knows sizes only; how an image then fills the output is `fit.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from contracts.catalogue.references import References
from contracts.catalogue.rows.models import ModelSpec
from contracts.requests.fields import MAX_SIDE, MIN_SIDE
from contracts.requests.images.fit import Fit, Size, contained


@dataclass(frozen=True)
class SizeRules:
    """Sizes that a model can generate."""

    multiple: int
    max_pixels: int
    own: Size

    @classmethod
    def of(cls, model: ModelSpec) -> SizeRules:
        """Return a model's rules; `own` is its default size."""
        own = (int(str(model.default("width"))), int(str(model.default("height"))))
        return cls(model.family_spec.size_multiple, model.pixel_cap, own)

    def follow(self, image: Size) -> Size:
        """Return the size for an image when none is asked for.

        It is the image's own, rounded down, where the model can generate that; else the size with the image's
        aspect that has as many pixels as the model's own.
        """
        width, height = (side - side % self.multiple for side in image)
        if min(width, height) >= MIN_SIDE and max(width, height) <= MAX_SIDE and width * height <= self.max_pixels:
            return width, height
        width = self._round(math.sqrt(self.own[0] * self.own[1] * image[0] / image[1]))
        height = self.other_side(width, image[1] / image[0])
        return self.other_side(height, image[0] / image[1]), height

    def other_side(self, side: int, ratio: float) -> int:
        """Return the side that is `ratio` times as long, as nearly as the model can generate that."""
        return min(self._round(side * ratio), self.max_pixels // side // self.multiple * self.multiple)

    def enlarged(self, size: Size, scale: float) -> Size:
        """Return a size `scale` times as wide and high, with sides that the model has, as near as they are."""
        width, height = (round(side * scale / self.multiple) * self.multiple for side in size)
        return width, height

    def contain(self, image: Size, box: Size) -> Size:
        """Return the size with the image's aspect inside a box; the box itself is a size of the model."""
        inner = contained(image, box)
        return min(box[0], self._round(inner[0])), min(box[1], self._round(inner[1]))

    def _round(self, side: float) -> int:
        """Return the nearest length of a side that is allowed."""
        least = math.ceil(MIN_SIDE / self.multiple)
        most = min(MAX_SIDE, self.max_pixels // (least * self.multiple)) // self.multiple
        return min(max(round(side / self.multiple), least), most) * self.multiple


def reference_size(rules: SizeRules, known: References, image: Size) -> Size:
    """Return the width and height at which the model reads a reference, which does not appear in the output.

    It is the image's own, rounded down, where the model can read that.
    """
    if known.scaled_pixels is not None:
        return known.scaled(*image)
    most = rules.max_pixels if known.max_pixels is None else min(rules.max_pixels, known.max_pixels)
    own = rules.own if math.prod(rules.own) <= most else (math.isqrt(most), math.isqrt(most))
    return replace(rules, max_pixels=most, own=own).follow(image)


def output_size(
    rules: SizeRules, width: int | None, height: int | None, image: Size | None, *, is_start: bool, fit: Fit
) -> Size:
    """Return the width and height of a job's images.

    Args:
        width, height: what the client asks for.
        image: size of the image that a missing side follows.
        is_start: whether the images start from it, so that without a size they have its own.
        fit: `contain`: a size that is asked for is the most, and the aspect is the image's.
    """
    if image is None or (width is None and height is None and not is_start):
        return width or rules.own[0], height or rules.own[1]
    if width is None:
        if height is None:
            return rules.follow(image)
        return rules.other_side(height, image[0] / image[1]), height
    if height is None:
        return width, rules.other_side(width, image[1] / image[0])
    return rules.contain(image, (width, height)) if fit == "contain" else (width, height)
