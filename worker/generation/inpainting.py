"""Prepares and finishes an inpaint: crops around the mask, pastes the result back, blends it in along a soft edge.

Knows no pipeline. What the mask leaves black is the input's in the result, pixel for pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFilter

from worker.families import GenerationInputs

#: Left, upper, right, lower in pixels; right and lower are exclusive.
Box = tuple[int, int, int, int]
MaskPixels = npt.NDArray[np.uint8]


def find_crop(mask: Image.Image | None, padding: int | None) -> Box | None:
    """Return the box around the mask's white, in the image's aspect ratio, that is generated at full size.

    Args:
        mask: the mask, of the output's size.
        padding: pixels around the white that the model should see; None: the whole image.
    """
    box = None if mask is None else mask.getbbox()
    if mask is None or box is None or padding is None:
        return None
    left, upper, right, lower = box
    scale = max((right - left + 2 * padding) / mask.width, (lower - upper + 2 * padding) / mask.height)
    width = min(mask.width, round(mask.width * scale))
    height = min(mask.height, round(mask.height * scale))
    x = min(max((left + right - width) // 2, 0), mask.width - width)
    y = min(max((upper + lower - height) // 2, 0), mask.height - height)
    return x, y, x + width, y + height


def crop_inputs(inputs: GenerationInputs, box: Box | None) -> GenerationInputs:
    """Return inputs whose images show only the box, enlarged to the output's size."""
    if box is None:
        return inputs
    image, mask, *controls = (
        None if image is None else enlarge(image, box) for image in (inputs.image, inputs.mask, *inputs.controls)
    )
    return replace(inputs, image=image, mask=mask, controls=controls)


def restore(generated: Sequence[Image.Image], inputs: GenerationInputs, box: Box | None) -> list[Image.Image]:
    """Return the final images: generated where the mask is white, the input image where it is black."""
    image, mask = inputs.image, inputs.mask
    if image is None or mask is None:
        return list(generated)
    if box is not None:
        generated = [paste_back(result, image, box) for result in generated]
    soft_mask = soften(mask, inputs.job.mask_blur or 0)
    return [Image.composite(result.convert("RGB"), image, soft_mask) for result in generated]


def enlarge(image: Image.Image, box: Box) -> Image.Image:
    """Return the part of an image in the box, scaled to the whole image's size."""
    resampling = Image.Resampling.BILINEAR if image.mode == "L" else Image.Resampling.LANCZOS
    return image.resize(image.size, resampling, box=box)


def paste_back(generated: Image.Image, original: Image.Image, box: Box) -> Image.Image:
    """Return the original with the box replaced by the generated image, scaled down to it."""
    left, upper, right, lower = box
    result = original.copy()
    result.paste(generated.resize((right - left, lower - upper), Image.Resampling.LANCZOS), (left, upper))
    return result


def soften(mask: Image.Image, blur: int) -> Image.Image:
    """Return the mask with an edge that rises over `blur` pixels inwards; what was black stays black.

    It is the mean of the mask and its successive erosions by one pixel, up to `blur` of them and as long as some
    white is left, smoothed. Outside the image counts as white.
    """
    eroded = np.asarray(mask, dtype=np.uint8)
    total, count = eroded.astype(np.uint32), 1
    while count <= blur and (eroded := _erode(eroded)).any():
        total += eroded
        count += 1
    ramp = Image.fromarray((total // count).astype(np.uint8))
    # Without smoothing, the steps of a round edge would be visible.
    smooth = ramp.filter(ImageFilter.GaussianBlur(min(blur, 6) / 3))
    return ImageChops.darker(mask, smooth)


def _erode(mask: MaskPixels) -> MaskPixels:
    """Return the minimum of each pixel's 3 × 3 neighbourhood."""
    rows = np.pad(mask, ((1, 1), (0, 0)), mode="edge")
    mask = np.minimum(np.minimum(rows[:-2], rows[1:-1]), rows[2:])
    columns = np.pad(mask, ((0, 0), (1, 1)), mode="edge")
    eroded: MaskPixels = np.minimum(np.minimum(columns[:, :-2], columns[:, 1:-1]), columns[:, 2:])
    return eroded
