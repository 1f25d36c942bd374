"""Decodes untrusted images and puts them into the form in which they are stored. Runs in the decoder's processes.

The stored form is a PNG, JPEG or WebP file of one image in sRGB without metadata but its orientation, at most 8
bits a channel in memory, which the worker decodes again. A file that is like that once its metadata is removed is
stored with the client's compressed pixels, so it does not grow; anything else becomes PNG. Knows no HTTP.
"""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from PIL import AvifImagePlugin, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from app.inputs.color_profiles import Conversion, find_conversion
from app.inputs.containers import (
    MAX_JPEG_SCANS,
    MAX_PARTS,
    MAX_PROFILE_BYTES,
    Stripped,
    TooManyParts,
    TooManyScans,
    strip_metadata,
)
from app.inputs.gray_levels import to_eight_bits
from app.inputs.masks import EmptyMask, read_drawn, read_hole, white_box

#: Accepted formats, by Pillow's names; its other decoders are never tried. The library for HEIF may be missing.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
STORED_FORMATS = ("PNG", "JPEG", "WEBP")
#: Pillow's modes in which images are stored.
_STORED_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
#: Bits of a pixel in Pillow's memory; 32 in all other modes.
_MODE_BITS = {"1": 8, "L": 8, "P": 8, "I;16": 16, "I;16L": 16, "I;16B": 16, "I;16N": 16}
#: Pillow decodes any WebP as an animation, for which libwebp holds several images: 14 bytes a pixel at the peak.
_WEBP_BITS = 80
#: AVIF and HEIF have up to four planes of 12 bits in 16, which become 4 bytes a pixel.
_PLANE_BITS = 96
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: Brands of HEIC files, behind `ftyp`.
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ORIENTATION = 0x0112
#: Orientations that exchange width and height.
_SIDEWAYS = range(5, 9)
#: Formats of cameras. A photo whose colors were converted and that is too large as PNG is stored as JPEG.
_PHOTO_FORMATS, _JPEG_QUALITY = ("jpeg", "webp", "avif", "heif"), 95
_NO_CONVERSION = Conversion()


class TooLarge(Exception):
    """An image over a limit: what was received, and what is allowed."""

    def __init__(self, message: str, allowed: str) -> None:
        self.message, self.allowed = message, allowed
        super().__init__(message)


class Unreadable(Exception):
    """Bytes that are not an image of an accepted format."""


class Deferred(Exception):
    """An image that is too large for this process, and not too large for the service."""


@dataclass(frozen=True)
class Limits:
    """Limits on one image.

    Attributes:
        max_bytes: of the file, as received and as stored.
        max_side: width or height in pixels.
        max_pixels: width × height.
        max_decoded_bytes: width × height × bits per pixel / 8, before anything is decoded.
    """

    max_bytes: int
    max_side: int
    max_pixels: int
    max_decoded_bytes: int


@dataclass(frozen=True)
class DecodedImage:
    """An image that was decoded in full, in its stored form.

    Attributes:
        width, height: in pixels, upright.
        format: of the bytes received: `png`, `jpeg`, `webp`, `gif`, `bmp`, `tiff`, `avif` or `heif`.
        stored_format: of `data`: `png`, `jpeg` or `webp`.
        color_profile: what was done about the file's color profile, in words; None where nothing need be done.
        mask_source: of a mask: what was read as the mask, in words; None where it is the brightness.
        white: of a mask, or of `hole`: the box around its white, in pixels.
        hole: of an image whose transparent part is to be regenerated: the mask of that part, a PNG file.
    """

    width: int
    height: int
    format: str
    stored_format: str
    data: bytes
    color_profile: str | None = None
    mask_source: str | None = None
    white: tuple[int, int, int, int] | None = None
    hole: bytes = b""


def configure(limits: Limits) -> None:
    """Set Pillow's own limits for this process, silence warnings that a client could write to our log, and read
    HEIC where the library for it is installed.
    """
    # Pillow sees some sizes before we do (a GIF's frame, a TIFF's tile); it raises at twice its limit.
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    warnings.simplefilter("ignore")
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each would hold pictures of its own
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener(thumbnails=False)


def decode(data: bytes, limits: Limits, defer_bytes: int | None = None) -> DecodedImage:
    """Check an image against the limits from its header, decode it, and return its stored form.

    Args:
        defer_bytes: decoded size from which on the image is left to another process.

    Raises:
        TooLarge: over a limit, or too large for the process' memory.
        Unreadable: not an image, a truncated one, or one of another format.
        Deferred: of more than `defer_bytes`; nothing was decoded.
    """
    with _opened(data, limits, defer_bytes) as (image, stripped):
        return _store(image, stripped, limits)


def decode_with_hole(data: bytes, limits: Limits, defer_bytes: int | None = None) -> DecodedImage:
    """As `decode`; `hole` is the mask of the image's transparent part, if it has one."""
    with _opened(data, limits, defer_bytes) as (image, stripped):
        decoded = _store(image, stripped, limits)
        with suppress(EmptyMask):
            mask = read_hole(_normalize(image))
            decoded = replace(decoded, hole=_to_png(mask, limits.max_bytes), white=white_box(mask))
        return decoded


def decode_mask(data: bytes, limits: Limits, defer_bytes: int | None = None) -> DecodedImage:
    """Decode a mask as it was drawn: white, or drawn on transparent, where the image is to be regenerated.

    Raises:
        EmptyMask: it would change no pixel.
        TooLarge, Unreadable, Deferred: as `decode`.
    """
    with _opened(data, limits, defer_bytes) as (image, _):
        format = _format_of(image)
        mask, source = read_drawn(_normalize(image, is_mask=True))
        return _store_mask(mask, format, source, limits)


def decode_alpha_mask(data: bytes, limits: Limits, defer_bytes: int | None = None) -> DecodedImage:
    """Decode an image whose transparent part is to be regenerated, as the mask that is white there.

    Raises:
        EmptyMask: no part of the image is transparent.
        TooLarge, Unreadable, Deferred: as `decode`.
    """
    with _opened(data, limits, defer_bytes) as (image, _):
        format = _format_of(image)
        return _store_mask(read_hole(_normalize(image)), format, "what is transparent", limits)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a stored image as it is shown: its orientation may exchange them. Decodes nothing."""
    orientation = 1
    if "exif" not in image.info:  # Pillow would decode the image to look for it behind the pixels
        return image.size
    with suppress(Exception):  # broken EXIF does not make the image unusable
        orientation = image.getexif().get(_ORIENTATION, 1)
    return image.size[::-1] if orientation in _SIDEWAYS else image.size


def _store(image: Image.Image, stripped: Stripped | None, limits: Limits) -> DecodedImage:
    """Return a decoded image's stored form."""
    format, conversion = _format_of(image), _conversion_of(image, stripped)
    if stripped is not None and conversion.transform is None and image.mode in _STORED_MODES:
        return DecodedImage(*upright_size(image), format, format, stripped.data, conversion.note)
    image = _normalize(image, conversion)
    is_photo = format in _PHOTO_FORMATS and image.mode in ("L", "RGB")
    stored_format, file = _to_file(image, limits.max_bytes, is_photo=is_photo)
    return DecodedImage(*image.size, format, stored_format, file, conversion.note)


def _store_mask(mask: Image.Image, format: str, source: str | None, limits: Limits) -> DecodedImage:
    file = _to_png(mask, limits.max_bytes)
    return DecodedImage(*mask.size, format, "png", file, mask_source=source, white=white_box(mask))


@contextmanager
def _opened(data: bytes, limits: Limits, defer_bytes: int | None) -> Iterator[tuple[Image.Image, Stripped | None]]:
    """Check and decode an image; whatever fails in the block is an error of the image.

    Yields:
        The image, and the file without metadata from which it was decoded: None if that could not be removed.
    """
    try:
        stripped = strip_metadata(data)
        with Image.open(io.BytesIO(stripped.data if stripped else data), formats=_readable()) as image:
            _check(image, data, limits, defer_bytes)
            image.load()
            yield image, stripped
    except (TooLarge, Deferred, EmptyMask):
        raise
    except MemoryError:
        message = "needs too much memory to be decoded; scale it down"
        raise TooLarge(message, f"width × height ≤ {limits.max_pixels}") from None
    except TooManyScans:
        message = f"has more than {MAX_JPEG_SCANS} scans; save it again, as a baseline JPEG or as PNG"
        raise Unreadable(message) from None
    except TooManyParts:
        raise Unreadable(f"has more than {MAX_PARTS} chunks or segments; save it again") from None
    except UnidentifiedImageError:
        raise Unreadable(_describe_unknown(data)) from None
    except Image.DecompressionBombError:
        raise _too_many_pixels(limits, "more") from None
    except Exception as error:  # noqa: BLE001  # decoders raise many types on broken bytes
        raise Unreadable(f"is corrupt or truncated: {error}") from None


def _readable() -> tuple[str, ...]:
    """Return the accepted formats that this process can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _describe_unknown(data: bytes) -> str:
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "is a HEIC image, which this service is not set up to read; send it as JPEG, PNG or AVIF"
    return "is not an image in a supported format"


def _conversion_of(image: Image.Image, stripped: Stripped | None) -> Conversion:
    profile = image.info.get("icc_profile") if stripped is None else stripped.color_profile
    is_deep = image.mode.startswith(("I", "F"))  # gray, of which 8 bits will be left
    return find_conversion((profile or b"")[:MAX_PROFILE_BYTES], "L" if is_deep else image.mode)


def _format_of(image: Image.Image) -> str:
    # Pillow calls a JPEG with an embedded preview MPO.
    return "jpeg" if image.format == "MPO" else str(image.format).lower()


def _check(image: Image.Image, data: bytes, limits: Limits, defer_bytes: int | None) -> None:
    """Compare what the header says with the limits."""
    width, height = image.size
    if max(width, height) > limits.max_side:
        message = f"may be at most {limits.max_side} pixels wide and high, got {width} × {height}; scale it down"
        raise TooLarge(message, f"sides ≤ {limits.max_side}")
    if width * height > limits.max_pixels:
        raise _too_many_pixels(limits, f"{width} × {height}")
    bits = _bits_per_pixel(image, data)
    decoded_bytes = width * height * bits // 8
    if decoded_bytes > limits.max_decoded_bytes:
        message = (
            f"may decode to at most {limits.max_decoded_bytes} bytes, got {width} × {height} pixels of {bits} "
            f"bits ({decoded_bytes} bytes); scale it down, or save it with 8 bits a channel"
        )
        raise TooLarge(message, f"width × height × bits / 8 ≤ {limits.max_decoded_bytes}")
    if defer_bytes is not None and decoded_bytes > defer_bytes:
        raise Deferred


def _bits_per_pixel(image: Image.Image, data: bytes) -> int:
    """Bits that a pixel takes while decoding: those in the file or those in memory, whichever is more."""
    in_file = 0
    if image.format == "WEBP":
        in_file = _WEBP_BITS
    elif image.format in ("AVIF", "HEIF"):
        in_file = _PLANE_BITS
    elif image.format == "PNG":  # the header chunk is always first
        in_file = data[24] * _PNG_CHANNELS.get(data[25], 4)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,))
        samples = image.tag_v2.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
        in_file = max(bits) * max(samples, len(bits))
    return max(in_file, _MODE_BITS.get(image.mode, 32))


def _too_many_pixels(limits: Limits, received: str) -> TooLarge:
    message = f"may have at most {limits.max_pixels} pixels, got {received}; scale it down"
    return TooLarge(message, f"width × height ≤ {limits.max_pixels}")


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


def _to_png(image: Image.Image, max_bytes: int) -> bytes:
    file = _BoundedFile(max_bytes)
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _to_file(image: Image.Image, max_bytes: int, *, is_photo: bool) -> tuple[str, bytes]:
    """Encode an image as PNG, or, where that would be too large for what may be a photo, as an excellent JPEG."""
    try:
        return "png", _to_png(image, max_bytes)
    except TooLarge:
        if not is_photo:
            raise
    file = _BoundedFile(max_bytes)
    image.save(file, "JPEG", quality=_JPEG_QUALITY, subsampling="4:4:4")
    return "jpeg", file.getvalue()


def _normalize(
    image: Image.Image, conversion: Conversion = _NO_CONVERSION, *, is_mask: bool = False
) -> Image.Image:
    """Return the image upright, in sRGB and a stored mode, without metadata; RGBA or LA if it is transparent."""
    with suppress(Exception):  # broken EXIF does not make the image unusable
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):
        image = to_eight_bits(image, is_mask=is_mask)
    image = conversion.apply(image)
    if image.has_transparency_data and image.mode != "LA":
        image = image.convert("RGBA")
    elif image.mode not in _STORED_MODES:
        image = image.convert("RGB")
    image.info = {}
    return image
