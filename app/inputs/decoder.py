"""Decodes untrusted images: checks the limits from the header alone, then produces one normal form.

The normal form is upright, 8-bit L, RGB or RGBA, as PNG without metadata. Does not know where the bytes come from.
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from PIL import Image, ImageOps, UnidentifiedImageError

from contracts.errors import FieldProblem, ImageTooLarge, InvalidRequest, NotAnImage

#: Accepted formats, by Pillow's names; its other decoders are never tried.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
#: Images that may be decoded in memory at the same time; one of 50 megapixels takes about 300 MB.
_CONCURRENT_DECODES = 2


@dataclass(frozen=True)
class InputImage:
    """A decoded image in normal form.

    Attributes:
        sha256: names the image: hash of the bytes received, or of `png` for a mask.
        format: of the bytes received: `png`, `jpeg`, `webp`, `gif`, `bmp` or `tiff`.
        png: the normal form.
    """

    sha256: str
    width: int
    height: int
    format: str
    png: bytes


class ImageDecoder:
    """Decoder with limits on bytes and pixels. Also sets Pillow's own pixel limit, for the whole process."""

    def __init__(self, max_bytes: int, max_pixels: int) -> None:
        self.max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._slots = threading.BoundedSemaphore(_CONCURRENT_DECODES)
        # Pillow sees some sizes before we do (a GIF's frame, a TIFF's tile); it raises at twice its limit.
        Image.MAX_IMAGE_PIXELS = max_pixels
        # Below that it warns, as it does of broken EXIF; a client must not be able to write to our log.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

    def decode(self, data: bytes, field: str) -> InputImage:
        """Check, decode and normalize an image; errors name `field`.

        Raises:
            ImageTooLarge: more bytes or pixels than the limits; nothing was decoded.
            NotAnImage: not an image, a truncated one, or one of another format.
        """
        with self._slots:
            image, format = self._read(data, field)
            return InputImage(hashlib.sha256(data).hexdigest(), *image.size, format, _to_png(image))

    def decode_alpha_mask(self, data: bytes, field: str) -> InputImage:
        """Decode an image whose transparent part is to be regenerated, as the mask that is white there.

        Raises:
            InvalidRequest: no part of the image is transparent.
            ImageTooLarge, NotAnImage: as `decode`.
        """
        with self._slots:
            image, format = self._read(data, field)
            alpha = image.getchannel("A") if image.mode == "RGBA" else None
            if alpha is None or alpha.getextrema()[0] == 255:
                message = "must have transparent pixels where the image is to be regenerated; it is opaque"
                raise InvalidRequest([FieldProblem(field, message)])
            png = _to_png(ImageOps.invert(alpha))
        return InputImage(hashlib.sha256(png).hexdigest(), *image.size, format, png)

    def too_many_bytes(self, field: str) -> ImageTooLarge:
        """Return the error for an image over the limit of bytes."""
        message = f"is larger than {self.max_bytes} bytes"
        return ImageTooLarge(field, message, f"up to {self.max_bytes} bytes")

    def _read(self, data: bytes, field: str) -> tuple[Image.Image, str]:
        """Return the normalized image and the name of its format."""
        if len(data) > self.max_bytes:
            raise self.too_many_bytes(field)
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                self._check_pixels(image.size, field)
                # Pillow calls a JPEG with an embedded preview MPO.
                format = "jpeg" if image.format == "MPO" else str(image.format).lower()
                image.load()
                return _normalize(image), format
        except ImageTooLarge:
            raise
        except UnidentifiedImageError:
            raise NotAnImage(field, "is not an image in a supported format") from None
        except Image.DecompressionBombError:
            raise self._too_many_pixels(field, "more") from None
        except Exception as error:  # noqa: BLE001  # decoders raise many types on broken bytes
            raise NotAnImage(field, f"is corrupt or truncated: {error}") from None

    def _check_pixels(self, size: tuple[int, int], field: str) -> None:
        width, height = size
        if width * height > self._max_pixels:
            raise self._too_many_pixels(field, f"{width} × {height}")

    def _too_many_pixels(self, field: str, received: str) -> ImageTooLarge:
        message = f"may have at most {self._max_pixels} pixels, got {received}; scale it down"
        return ImageTooLarge(field, message, f"width × height ≤ {self._max_pixels}")


def _to_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _normalize(image: Image.Image) -> Image.Image:
    """Return the image upright, as L, RGB or RGBA with 8 bits a channel, without metadata."""
    _apply_orientation(image)
    if image.mode.startswith(("I", "F")):
        image = _to_eight_bits(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    image.info = {}
    return image


def _apply_orientation(image: Image.Image) -> None:
    with suppress(Exception):  # broken EXIF does not make the image unusable
        ImageOps.exif_transpose(image, in_place=True)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point gray to 0–255 without clipping.

    Modes I and F do not define white: it is the smallest usual full scale that covers the image.
    """
    if image.mode.startswith("I;16"):
        white = 65_535.0
        image = image.convert("I")
    else:
        high = cast("float", image.getextrema()[1])
        usual = (1.0, 255.0, 65_535.0) if image.mode == "F" else (255.0, 65_535.0)
        white = next((scale for scale in usual if high <= scale), high)
    factor = 255.0 / white
    return image.point(lambda value: value * factor + 0.5).convert("L")
