"""Classes of an image's pixels, as transformers (5.23) finds them, in ADE20K's colors."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from worker.networks.images import Pixels, require_finite
from worker.preprocessors.ade20k import COLORS
from worker.preprocessors.loading import Prepared

#: Classes that are scaled to the map's size at once: all 150 would take gigabytes.
_CLASSES_AT_ONCE = 4
#: The most values that are held for each pixel of a map.
MAP_VALUES = 3 * _CLASSES_AT_ONCE


def color_map(image: Prepared) -> Pixels:
    """The classes of an image in their colors, (height, width, 3); raises as `class_map`."""
    return COLORS[class_map(image)]


def class_map(image: Prepared) -> Pixels:
    """The most likely class of each pixel, (height, width): of several that are equally likely, the first.

    Raises:
        JobFailed: the output is not finite.
    """
    model, size = image.model, image.size[::-1]
    with torch.inference_mode():
        model.auxiliary_head = None  # of UperNet: only training uses it
        logits = model(**image.given.to(model.device)).logits
        require_finite(logits, "preprocessor")
        best = torch.full(size, -torch.inf, device=logits.device)
        classes = torch.zeros(size, dtype=torch.uint8, device=logits.device)
        for first in range(0, logits.shape[1], _CLASSES_AT_ONCE):
            some = interpolate(logits[:, first : first + _CLASSES_AT_ONCE], size, mode="bilinear")
            value, index = some[0].max(dim=0)
            better = value > best
            best, classes = torch.where(better, value, best), torch.where(better, index + first, classes).byte()
    pixels: Pixels = classes.cpu().numpy()
    return pixels
