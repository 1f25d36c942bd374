"""Reads the images that jobs name from the storage and decodes them: beside the prompts, a call's inputs."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageOps

from contracts.errors import FailureCode, JobFailed, NotFound
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from worker.families import GenerationInputs, prompts_per_image

#: Width, height in pixels.
Size = tuple[int, int]
#: In which inputs are stored.
_FORMATS = ("PNG", "JPEG", "WEBP")


def read_inputs(jobs: Sequence[JobParameters], storage: Storage) -> GenerationInputs:
    """Return the inputs of jobs that share a pipeline call, scaled to the output's size.

    Raises:
        JobFailed: INPUT_MISSING: an image is no longer stored.
        Unavailable: the storage does not answer.
    """
    shared = jobs[0]
    size = (shared.width, shared.height)
    try:
        return GenerationInputs(
            job=shared,
            prompts=prompts_per_image(jobs),
            image=None if shared.image is None else decode_image(storage.read(shared.image), size),
            mask=None if shared.mask_image is None else decode_mask(storage.read(shared.mask_image), size),
            controls=[
                None if control.image is None else decode_image(storage.read(control.image), size)
                for control in shared.controls
            ],
        )
    except NotFound as error:
        message = "an input image is no longer stored; upload it again"
        raise JobFailed(FailureCode.INPUT_MISSING, message) from error


def decode_image(data: bytes, size: Size) -> Image.Image:
    """Decode an input or control image: RGB, scaled to `size`; transparent pixels become white."""
    image = _flatten(_open(data), "white").convert("RGB")
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def decode_mask(data: bytes, size: Size) -> Image.Image:
    """Decode a mask: one channel, white = generate, scaled to `size`; transparent pixels become black.

    Scaled bilinearly: Lanczos overshoots at edges and would touch pixels beside the mask.
    """
    mask = _flatten(_open(data), "black").convert("L")
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)


def _open(data: bytes) -> Image.Image:
    """Decode a stored input, a PNG of ours or a client's file without metadata: upright, not in a palette."""
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("1", "P") and not image.has_transparency_data:
        return image.convert("L" if image.mode == "1" else "RGB")
    return image


def _flatten(image: Image.Image, color: str) -> Image.Image:
    """Return the image on an opaque background."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, color), image)
