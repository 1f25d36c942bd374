"""Whether an image that was made again is the same, and if not, from which step on. Makes none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

SAME_BYTES = "same bytes"
WITHIN_ERROR = "same within the dtype's error"
#: Data type -> levels of 255 by which a value may differ, and the share of values that may differ by more. As
#: measured between images from joined calls and the same images made alone (docs/queue.md).
TOLERANCES: Mapping[str, tuple[int, float]] = {"float32": (1, 0.0), "bfloat16": (2, 0.01), "float16": (2, 0.01)}
#: What of a receipt changes the last bits of an honest image.
ENVIRONMENT = ("device", "dtype", "kernels", "versions", "deviations", "placement")


def first_difference(claimed: Sequence[str], made: Sequence[str], steps: Collection[int]) -> int | None:
    """Return the first of some steps, counted from 1, whose latents differ; None: all are the same.

    A step that only one of the two has differs.
    """
    for step in sorted(steps):
        if list(claimed[step - 1 : step]) != list(made[step - 1 : step]):
            return step
    return None


def differing(claimed: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    """Return what of two receipts' environments differs, so that honest images may differ in their last bits.

    What is not claimed explains nothing.
    """
    return [name for name in ENVIRONMENT if name in claimed and claimed[name] != made.get(name)]


def is_within_error(claimed: Image.Image, made: Image.Image, dtype: str) -> bool:
    """Whether two images, both without loss, differ no more than a data type's rounding explains."""
    if claimed.size != made.size:
        return False
    levels, share = TOLERANCES.get(dtype, TOLERANCES["float32"])
    mode = "RGBA" if claimed.has_transparency_data else "RGB"
    first, second = (np.asarray(image.convert(mode), np.int16) for image in (claimed, made))
    return float((np.abs(first - second) > levels).mean()) <= share
