"""Reads the images that a job names from the storage and decodes them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageOps

from contracts.errors import NotFound
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.requests.images.fit import Area, Box, Fit, Size, position_in
from contracts.requests.images.stored_image import IMAGE_PROMPT_MASK_FIT
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from worker.families.inputs import GenerationInputs

_FIT_OF_EARLIER_RELEASES: Fit = "stretch"
_WHITE = 128
#: In which inputs are stored.
_FORMATS = ("PNG", "JPEG", "WEBP")


def read_inputs(
    job: JobParameters, storage: Storage, maps: Mapping[int, Image.Image] = MappingProxyType({})
) -> GenerationInputs:
    """Return the inputs of a job's pipeline call: images of the output's size, references of their own.

    Args:
        maps: control images that the job has made, by the indexes of their controls.

    Raises:
        JobFailed: INPUT_MISSING: an image is no longer stored.
        Unavailable: the storage does not answer.
    """
    size, fit = (job.width, job.height), job.fit or _FIT_OF_EARLIER_RELEASES
    try:
        return GenerationInputs(
            job=job,
            image=None if job.image is None else decode_image(storage.read(job.image), size, fit),
            mask=None if job.mask_image is None else decode_mask(storage.read(job.mask_image), size, fit),
            controls=[
                fit_image(maps[index], size, fit)
                if index in maps
                else None
                if control.image is None
                else decode_image(storage.read(control.image), size, fit)
                for index, control in enumerate(job.controls)
            ]
            or [decode_image(storage.read(key), size, fit) for key in (job.control_image,) if key is not None],
            references=[
                decode_whole(storage.read(reference.image))
                if reference.scaled_by_pipeline
                else decode_image(storage.read(reference.image), (reference.width, reference.height), fit)
                for reference in job.references
            ],
            image_prompts=[
                [decode_whole(storage.read(key)) for key in adapter.images] for adapter in job.ip_adapters
            ],
            image_prompt_masks=[
                decode_mask(storage.read(adapter.mask), size, IMAGE_PROMPT_MASK_FIT) if adapter.mask else None
                for adapter in job.ip_adapters
            ],
        )
    except NotFound as error:
        raise _missing() from error


def read_stored(key: str, storage: Storage) -> bytes:
    """Read one input image's file; raises as `read_inputs`."""
    try:
        return storage.read(key)
    except NotFound as error:
        raise _missing() from error


def _missing() -> JobFailed:
    return JobFailed(FailureCode.INPUT_MISSING, "an input image is no longer stored; upload it again")


def decode_image(data: bytes, size: Size, fit: Fit = _FIT_OF_EARLIER_RELEASES) -> Image.Image:
    """Decode an input or control image: RGB, of `size`; transparent pixels become white.

    What an image does not cover continues its edges.
    """
    return fit_image(flatten(open_stored(data), "white").convert("RGB"), size, fit)


def fit_image(image: Image.Image, size: Size, fit: Fit) -> Image.Image:
    """Bring an RGB image to `size`; what it does not cover continues its edges."""
    if image.size == size:
        return image
    position = position_in(image.size, size, fit)
    part = image.resize(_size_of(position.area), Image.Resampling.LANCZOS, box=position.crop)
    return _extend_edges(part, position.area, size)


def decode_whole(data: bytes) -> Image.Image:
    """Decode an image that a pipeline or an encoder scales: RGB, of its own size, on white."""
    return flatten(open_stored(data), "white").convert("RGB")


def decode_mask(data: bytes, size: Size, fit: Fit = _FIT_OF_EARLIER_RELEASES) -> Image.Image:
    """Decode a mask: one channel, white = generate, of `size`; transparent pixels become black.

    Scaled bilinearly: Lanczos overshoots at edges and would touch pixels beside the mask. What its image does not
    cover is generated.
    """
    mask = flatten(open_stored(data), "black").convert("L")
    if mask.size == size:
        return mask
    position = position_in(mask.size, size, fit)
    inner = _size_of(position.area)
    part = mask.resize(inner, Image.Resampling.BILINEAR, box=position.crop)
    if not _has_white(part) and _has_white(mask):
        part = _scale_by_maximum(mask.crop(_whole_pixels(position.crop)), inner)
    if inner == size:
        return part
    whole = Image.new("L", size, 255)
    whole.paste(part, position.area)
    return whole


def _size_of(area: Area) -> Size:
    return area[2] - area[0], area[3] - area[1]


def _has_white(mask: Image.Image) -> bool:
    return mask.getextrema()[1] >= _WHITE  # type: ignore[operator]


def _whole_pixels(box: Box) -> Area:
    return math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])


def _scale_by_maximum(mask: Image.Image, size: Size) -> Image.Image:
    """Scale a mask down so that each pixel is the brightest of those it stands for: thin lines stay white."""
    columns, rows = (np.arange(after) * before // after for before, after in zip(mask.size, size, strict=True))
    pixels = np.maximum.reduceat(np.asarray(mask, dtype=np.uint8), rows, axis=0)
    return Image.fromarray(np.maximum.reduceat(pixels, columns, axis=1))


def _extend_edges(image: Image.Image, area: Area, size: Size) -> Image.Image:
    """Return an image of `size` with this one in an area of it, and the pixels of its edges around it."""
    left, upper, right, lower = area
    if image.size == size:
        return image
    around = ((upper, size[1] - lower), (left, size[0] - right), (0, 0))
    return Image.fromarray(np.pad(np.asarray(image), around, mode="edge"))


def open_stored(data: bytes) -> Image.Image:
    """Decode a stored input, a PNG of ours or a client's file without metadata: upright, not in a palette."""
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("1", "P") and not image.has_transparency_data:
        return image.convert("L" if image.mode == "1" else "RGB")
    return image


def flatten(image: Image.Image, color: str) -> Image.Image:
    """Return the image on an opaque background."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, color), image)
