"""Decodes pictures that strangers send: bounds first, from the header alone; then one normal form.

The normal form is upright, 8-bit L, RGB or RGBA, as PNG without metadata. Who sent the bytes, and how they
came, is `inputs.py`'s matter.
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
from contracts.requests.resolution import StoredImage

#: What is read, by Pillow's names; the rest of its decoders are never tried.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
#: Pictures that may lie decoded in memory at one time; one of 50 megapixels takes about 300 MB on its way.
_DECODES_AT_ONCE = 2


@dataclass(frozen=True)
class InputImage:
    """A picture in normal form.

    Attributes:
        sha256: of the bytes as they came; names the picture.
        format: of the bytes as they came.
        png: the normal form.
    """

    sha256: str
    width: int
    height: int
    format: str
    png: bytes

    @property
    def stored(self) -> StoredImage:
        """What validation knows it by, before it has a place in the storage."""
        return StoredImage(self.sha256, self.width, self.height)


class ImageDecoder:
    """Decodes within bounds. Sets Pillow's own pixel bound too, which is the process's."""

    def __init__(self, max_bytes: int, max_pixels: int) -> None:
        self.max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._turns = threading.BoundedSemaphore(_DECODES_AT_ONCE)
        # Pillow meets some sizes before we do (a GIF's frame, a TIFF's tile); it raises at twice its bound.
        Image.MAX_IMAGE_PIXELS = max_pixels
        # Up to there it warns, as of broken EXIF and the like: nothing of strangers' bytes is for our log.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

    def decode(self, data: bytes, field: str) -> InputImage:
        """Read, check and normalise a picture; `field` is named in the error.

        Raises:
            PictureTooLarge: more bytes or pixels than the bounds; nothing was decoded.
            NotAPicture: no image, a truncated one, or another format.
        """
        if len(data) > self.max_bytes:
            raise self.too_many_bytes(field)
        with self._turns:
            try:
                with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                    self._check_pixels(image.size, field)
                    # A JPEG with a preview inside it is MPO to Pillow.
                    name = "jpeg" if image.format == "MPO" else str(image.format).lower()
                    image.load()
                    normal = _normalise(image)
            except ImageTooLarge:
                raise
            except UnidentifiedImageError:
                raise NotAnImage(field, "is no image of a format that is read here") from None
            except Image.DecompressionBombError:
                raise self._too_many_pixels(field, "it") from None
            except Exception as error:  # noqa: BLE001  # decoders raise whatever they like on broken bytes
                raise NotAnImage(field, f"is a broken or truncated image: {error}") from None
            png = io.BytesIO()
            normal.save(png, "PNG", compress_level=1)
        return InputImage(hashlib.sha256(data).hexdigest(), *normal.size, name, png.getvalue())

    def too_many_bytes(self, field: str) -> ImageTooLarge:
        """The error for a picture over the byte bound."""
        message = f"has more than {self.max_bytes} bytes"
        return ImageTooLarge(field, message, f"up to {self.max_bytes} bytes")

    def _check_pixels(self, size: tuple[int, int], field: str) -> None:
        width, height = size
        if width * height > self._max_pixels:
            raise self._too_many_pixels(field, f"{width} × {height}")

    def _too_many_pixels(self, field: str, what: str) -> ImageTooLarge:
        message = f"{what} is more than the {self._max_pixels} pixels that are read here; scale it down"
        return ImageTooLarge(field, message, f"width × height ≤ {self._max_pixels}")


def invert_alpha(png: bytes, field: str) -> bytes:
    """A mask of ours, white = repaint, from a picture in normal form whose transparency says where.

    Raises:
        InvalidRequest: nothing in the picture is transparent.
    """
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if alpha is None or alpha.getextrema()[0] == 255:
        message = "nothing in it is transparent; make transparent what is to be painted anew"
        raise InvalidRequest([FieldProblem(field, message)])
    file = io.BytesIO()
    ImageOps.invert(alpha).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _normalise(image: Image.Image) -> Image.Image:
    """Upright, and L, RGB or RGBA with eight bits a channel; without metadata."""
    _turn_upright(image)
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


def _turn_upright(image: Image.Image) -> None:
    with suppress(Exception):  # a picture with broken EXIF is still a picture
        ImageOps.exif_transpose(image, in_place=True)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point grey to 0–255; nothing is clipped.

    The two wide modes do not say what white is: it is the least usual full scale that holds the picture.
    """
    if image.mode.startswith("I;16"):
        full = 65_535.0
        image = image.convert("I")
    else:
        high = cast("float", image.getextrema()[1])
        usual = (1.0, 255.0, 65_535.0) if image.mode == "F" else (255.0, 65_535.0)
        full = next((scale for scale in usual if high <= scale), high)
    factor = 255.0 / full
    return image.point(lambda value: value * factor + 0.5).convert("L")
