"""The form in which images are stored, and which the worker decodes again.

A PNG, JPEG or WebP file of one image in sRGB, at most 8 bits a channel in memory, without metadata but its
orientation.
"""

from __future__ import annotations

import io
from contextlib import suppress
from typing import cast

from PIL import Image, ImageOps

from app.inputs.codec.color_profiles import Conversion
from app.inputs.codec.limits import TooLarge

STORED_FORMATS = ("PNG", "JPEG", "WEBP")
#: Pillow's modes in which images are stored.
STORED_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_ORIENTATION = 0x0112
#: Orientations that exchange width and height.
_SIDEWAYS = range(5, 9)
#: Formats of cameras. A photo whose colors were converted and that is too large as PNG is stored as JPEG.
_PHOTO_FORMATS, _JPEG_QUALITY = ("jpeg", "webp", "avif", "heif"), 95
_NO_CONVERSION = Conversion()
#: Pixels of a gray image of more than 8 bits that are converted at a time.
_STRIP_PIXELS = 2**20


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a stored image as it is shown: its orientation may exchange them. Decodes nothing."""
    orientation = 1
    if "exif" not in image.info:  # Pillow would decode the image to look for it behind the pixels
        return image.size
    with suppress(Exception):  # broken EXIF does not make the image unusable
        orientation = image.getexif().get(_ORIENTATION, 1)
    return image.size[::-1] if orientation in _SIDEWAYS else image.size


class _BoundedFile(io.BytesIO):
    """A file in memory that refuses to grow beyond a limit, so that encoding ends there."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def write(self, data: object) -> int:
        """Append bytes.

        Raises:
            TooLarge: the file would be larger than the limit.
        """
        written = super().write(data)  # type: ignore[arg-type]
        if self.tell() > self._max_bytes:
            message = (
                f"takes more than {self._max_bytes} bytes as PNG, in which images of its kind are stored; "
                "scale it down, or send it as JPEG, WebP or PNG with 8 bits a channel"
            )
            raise TooLarge(message, f"up to {self._max_bytes} bytes as PNG")
        return written


def to_png(image: Image.Image, max_bytes: int) -> bytes:
    """Encode an image as PNG.

    Raises:
        TooLarge: it would be larger than `max_bytes`.
    """
    file = _BoundedFile(max_bytes)
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def to_file(image: Image.Image, received_format: str, max_bytes: int) -> tuple[str, bytes]:
    """Encode an image as PNG, or, where that would be too large for what may be a photo, as an excellent JPEG.

    Args:
        received_format: in which the client sent it, which tells photos from drawings.

    Returns:
        The name of the format, and the file.

    Raises:
        TooLarge: it would be larger than `max_bytes`.
    """
    try:
        return "png", to_png(image, max_bytes)
    except TooLarge:
        if received_format not in _PHOTO_FORMATS or image.mode not in ("L", "RGB"):
            raise
    file = _BoundedFile(max_bytes)
    image.save(file, "JPEG", quality=_JPEG_QUALITY, subsampling="4:4:4")
    return "jpeg", file.getvalue()


def normalize(
    image: Image.Image, conversion: Conversion = _NO_CONVERSION, *, is_mask: bool = False
) -> Image.Image:
    """Return the image upright, in sRGB and a stored mode, without metadata; RGBA or LA if it is transparent."""
    with suppress(Exception):  # broken EXIF does not make the image unusable
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):
        image = _to_eight_bits(image, is_mask=is_mask)
    image = conversion.apply(image)
    if image.has_transparency_data and image.mode != "LA":
        image = image.convert("RGBA")
    elif image.mode not in STORED_MODES:
        image = image.convert("RGB")
    image.info = {}
    return image


def _to_eight_bits(image: Image.Image, *, is_mask: bool) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point gray to 0–255 without clipping.

    Modes I and F do not define white: it is the smallest usual full scale that covers the image. Neither do masks
    of 16 bits, into which programs write 0 and 1, or 0 and 255.
    """
    is_short = image.mode.startswith("I;16")
    if is_short:
        is_byte = is_mask and cast("float", image.getextrema()[1]) <= 255
        white = 255.0 if is_byte else 65_535.0
    else:
        high = cast("float", image.getextrema()[1])
        usual = (1.0, 255.0, 65_535.0) if image.mode == "F" else (255.0, 65_535.0)
        white = next((scale for scale in usual if high <= scale), high)
    factor = 255.0 / white
    result, (width, height) = Image.new("L", image.size), image.size
    rows = max(1, _STRIP_PIXELS // width)
    # The wider copies exist one strip at a time: of the whole image they would take eleven bytes a pixel.
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        strip = strip.convert("I") if is_short else strip
        result.paste(strip.point(lambda value: value * factor + 0.5).convert("L"), (0, top))
    return result
