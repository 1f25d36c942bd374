"""How an input image fills an output of another shape: which part of it is used, and what it covers.

Pure geometry in pixels, the same for the API, which reports it, and the worker, which scales by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: `cover` fills the output and cuts off what stands out; `contain` gives the output the image's own aspect within
#: the size asked for; `pad` shows the whole image between bars; `stretch` changes its aspect.
Fit = Literal["cover", "contain", "stretch", "pad"]
#: Width, height.
Size = tuple[int, int]
#: Left, upper, right, lower; right and lower are exclusive.
Box = tuple[float, float, float, float]
Area = tuple[int, int, int, int]


@dataclass(frozen=True)
class ImagePosition:
    """Position of an image in an output.

    Attributes:
        crop: the part of the image that is used, in its own pixels; may have fractions of pixels.
        area: what that part covers of the output; the rest is filled.
    """

    crop: Box
    area: Area


def position_in(source: Size, output: Size, fit: Fit) -> ImagePosition:
    """Return where an image of size `source` is in an output; centered wherever its aspect differs."""
    whole, everything = (0.0, 0.0, float(source[0]), float(source[1])), (0, 0, *output)
    if fit == "stretch" or source[0] * output[1] == source[1] * output[0]:
        return ImagePosition(whole, everything)
    if fit == "cover":
        scale = max(output[0] / source[0], output[1] / source[1])
        width, height = min(source[0], output[0] / scale), min(source[1], output[1] / scale)
        left, upper = (source[0] - width) / 2, (source[1] - height) / 2
        return ImagePosition((left, upper, left + width, upper + height), everything)
    inner = contained(source, output)
    x, y = (output[0] - inner[0]) // 2, (output[1] - inner[1]) // 2
    return ImagePosition(whole, (x, y, x + inner[0], y + inner[1]))


def contained(source: Size, box: Size) -> Size:
    """Return the largest size with the image's aspect inside a box, at least one pixel wide and high."""
    scale = min(box[0] / source[0], box[1] / source[1])
    width, height = (min(side, max(1, round(length * scale))) for side, length in zip(box, source, strict=True))
    return width, height
