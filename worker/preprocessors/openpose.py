"""A person's limbs and joints in the colors that ControlNets of OpenPose were trained on.

The order of the 18 points, the limbs, colors and widths are OpenPose's (Cao et al., arXiv 1812.08008), as drawn by
lllyasviel's annotator and controlnet_aux; hands and faces are not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from worker.networks.images import Pixels

_Place = tuple[float, float]
#: OpenPose's point -> COCO's joint; the neck, which COCO lacks, lies between the shoulders.
_NECK, _SHOULDERS = 1, (5, 6)
_OF_COCO = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
#: Of points, and of limbs in the same order, these darker.
_COLORS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
    (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
    (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
_LIMB_BRIGHTNESS = 0.6
#: Half the width of a limb, and the radius of a point, in pixels of an image whose shorter side is 512.
_RADIUS, _RADIUS_FOR_SIDE = 4, 512
#: Corners of the polygon that stands for an ellipse.
_CORNERS = 72


def draw_person(joints: Sequence[_Place | None], size: tuple[int, int]) -> Pixels:
    """Draw a person on black.

    Args:
        joints: COCO's 17 in their order, x and y in pixels; None is not drawn, nor are its limbs.
        size: width and height of the image.

    Returns:
        The image, (height, width, 3); all black where no joint is known.
    """
    image = Image.new("RGB", size)
    draw, points = ImageDraw.Draw(image), to_openpose(joints)
    radius = max(1, round(_RADIUS * min(size) / _RADIUS_FOR_SIDE))
    for (first, second), color in zip(_LIMBS, _COLORS, strict=False):
        begin, end = points[first], points[second]
        if begin is not None and end is not None:
            draw.polygon(_ellipse(begin, end, radius), fill=_darker(color))
    for point, color in zip(points, _COLORS, strict=True):
        if point is not None:
            x, y = int(point[0]), int(point[1])
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    return np.asarray(image)


def to_openpose(joints: Sequence[_Place | None]) -> list[_Place | None]:
    """OpenPose's 18 points of COCO's 17 joints."""
    points = [None if joint is None else joints[joint] for joint in _OF_COCO]
    left, right = (joints[shoulder] for shoulder in _SHOULDERS)
    if left is not None and right is not None:
        points[_NECK] = ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2)
    return points


def _ellipse(begin: _Place, end: _Place, radius: int) -> list[_Place]:
    """An ellipse between two points."""
    center = ((begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2)
    along, angle = math.dist(begin, end) / 2, math.atan2(end[1] - begin[1], end[0] - begin[0])
    turns = [2 * math.pi * corner / _CORNERS for corner in range(_CORNERS)]
    return [
        (
            center[0] + along * math.cos(turn) * math.cos(angle) - radius * math.sin(turn) * math.sin(angle),
            center[1] + along * math.cos(turn) * math.sin(angle) + radius * math.sin(turn) * math.cos(angle),
        )
        for turn in turns
    ]


def _darker(color: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (int(value * _LIMB_BRIGHTNESS) for value in color)
    return red, green, blue
