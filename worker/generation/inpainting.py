"""Prepares and finishes an inpaint: crops around the mask, pastes the result back, blends it in along a soft edge.

Knows no pipeline. What the mask leaves black is the input's in the result, pixel for pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFilter

from worker.families.inputs import GenerationInputs

#: Left, upper, right, lower in pixels; right and lower are exclusive.
Box = tuple[int, int, int, int]
MaskPixels = npt.NDArray[np.uint8]
#: Levels from which on a pixel of a mask counts as white, as pipelines round masks.
WHITE = 128
#: Pixels beside and below each other, of which pipelines sample one of a mask.
_CELL = 8


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


def crop_inputs(inputs: GenerationInputs, box: Box | None, *, of_pixels: bool) -> GenerationInputs:
    """Return the pipeline's inputs: images of the enlarged box, and a mask that reaches the latents.

    Args:
        of_pixels: whether the pipeline has no latents, and reads each pixel of a mask.
    """
    if box is not None:
        image, mask, *controls = (
            None if image is None else enlarge(image, box)
            for image in (inputs.image, inputs.mask, *inputs.controls)
        )
        masks = [None if one is None else enlarge(one, box) for one in inputs.image_prompt_masks]
        inputs = replace(inputs, image=image, mask=mask, controls=controls, image_prompt_masks=masks)
    return inputs if inputs.mask is None or of_pixels else replace(inputs, mask=reach_latents(inputs.mask))


def restore(
    generated: Sequence[Image.Image], inputs: GenerationInputs, box: Box | None, scale: int
) -> list[Image.Image]:
    """Return the final images: generated where the mask is white, the input image where it is black.

    Args:
        scale: how many times as wide they are as the images whose pixels the mask's blur counts.
    """
    image, mask = inputs.image, inputs.mask
    if image is None or mask is None:
        return list(generated)
    if box is not None:
        generated = [paste_back(result, image, box) for result in generated]
    soft_mask = soften(mask, (inputs.job.mask_blur or 0) * scale)
    return [Image.composite(result.convert("RGB"), image, soft_mask) for result in generated]


def enlarge(image: Image.Image, box: Box) -> Image.Image:
    """Return the part of an image in the box, scaled to the whole image's size."""
    if image.mode != "L":
        return image.resize(image.size, Image.Resampling.LANCZOS, box=box)
    mask = image.resize(image.size, Image.Resampling.BILINEAR, box=box)
    # Between its samples, a bilinear enlargement may dim a single gray pixel until it counts as black.
    return mask if _has_white(mask) else image.resize(image.size, Image.Resampling.NEAREST, box=box)


def reach_latents(mask: Image.Image) -> Image.Image:
    """Return the mask of which a pipeline samples some white.

    Pipelines take one pixel for each value of the latents, at multiples of at most 8 pixels. A mask that is white
    only between these, such as a thin line, would let them regenerate nothing: it is widened to whole cells.
    """
    pixels = np.asarray(mask, dtype=np.uint8)
    if (pixels[::_CELL, ::_CELL] >= WHITE).any() or not (pixels >= WHITE).any():
        return mask
    padding = [(0, -length % _CELL) for length in pixels.shape]
    cells = np.maximum.reduceat(np.pad(pixels, padding), np.arange(0, mask.height, _CELL), axis=0)
    cells = np.maximum.reduceat(cells, np.arange(0, mask.width, _CELL), axis=1)
    return Image.fromarray(cells.repeat(_CELL, axis=0).repeat(_CELL, axis=1)[: mask.height, : mask.width])


def paste_back(generated: Image.Image, original: Image.Image, box: Box) -> Image.Image:
    """Return the original with the box replaced by the generated image, scaled down to it."""
    left, upper, right, lower = box
    result = original.copy()
    result.paste(generated.resize((right - left, lower - upper), Image.Resampling.LANCZOS), (left, upper))
    return result


def soften(mask: Image.Image, blur: int) -> Image.Image:
    """Return the mask with an edge that rises over `blur` pixels inwards; what was black stays black.

    It is the mean of the mask and its successive erosions by one pixel, up to `blur` of them and as long as some
    white is left, smoothed. Of a mask thinner than its blur, the innermost white stays as it is: smoothing alone
    would fade a line until nothing of it changes. Outside the image counts as white.
    """
    eroded = innermost = np.asarray(mask, dtype=np.uint8)
    total, count, is_thin = eroded.astype(np.uint32), 1, False
    while count <= blur and (eroded := _erode(eroded)).any():
        total += eroded
        count += 1
        is_thin = is_thin or not (eroded >= WHITE).any()
        innermost = innermost if is_thin else eroded
    ramp = Image.fromarray((total // count).astype(np.uint8))
    # Without smoothing, the steps of a round edge would be visible.
    smooth = ramp.filter(ImageFilter.GaussianBlur(min(blur, 6) / 3))
    if is_thin or count <= blur:
        smooth = ImageChops.lighter(smooth, Image.fromarray(innermost))
    return ImageChops.darker(mask, smooth)


def _has_white(mask: Image.Image) -> bool:
    return mask.getextrema()[1] >= WHITE  # type: ignore[operator]


def _erode(mask: MaskPixels) -> MaskPixels:
    """Return the minimum of each pixel's 3 × 3 neighbourhood."""
    rows = np.pad(mask, ((1, 1), (0, 0)), mode="edge")
    mask = np.minimum(np.minimum(rows[:-2], rows[1:-1]), rows[2:])
    columns = np.pad(mask, ((0, 0), (1, 1)), mode="edge")
    eroded: MaskPixels = np.minimum(np.minimum(columns[:, :-2], columns[:, 1:-1]), columns[:, 2:])
    return eroded
