"""Decodes untrusted images and masks, and returns them in their stored form. Knows no HTTP.

A file that has the stored form once its metadata is removed is stored with the client's compressed pixels, so it
does not grow; anything else is encoded again.
"""

from __future__ import annotations

import importlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from PIL import AvifImagePlugin, Image, ImageOps, UnidentifiedImageError

from app.inputs.codec.color_profiles import Conversion, find_conversion
from app.inputs.codec.containers import (
    MAX_JPEG_SCANS,
    MAX_PARTS,
    MAX_PROFILE_BYTES,
    Stripped,
    TooManyParts,
    TooManyScans,
    strip_metadata,
)
from app.inputs.codec.decoded_image import DecodedImage
from app.inputs.codec.fill import fill_masked, split_files
from app.inputs.codec.limits import Deferred, Limits, TooLarge, check_header, too_many_pixels
from app.inputs.codec.masks import EmptyMask, read_drawn, read_hole, white_box
from app.inputs.codec.stored_form import STORED_MODES, normalize, to_file, to_png, upright_size
from contracts.requests.images.preprocessing import Options

#: Accepted formats, by Pillow's names; its other decoders are never tried. The library for HEIF may be missing.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
#: How files of the formats begin whose decoders do not say that such a file is broken.
_SIGNATURES = {
    "AVIF": re.compile(rb".{4}ftyp(avif|avis)", re.DOTALL),
    "HEIF": re.compile(rb".{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1)", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "WebP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
}


class Unreadable(Exception):
    """Bytes that are not an image of an accepted format."""


def configure(limits: Limits) -> None:
    """Set Pillow's own limits for this process, silence warnings that a client could write to our log, and read
    HEIC where the library for it is installed.
    """
    # Pillow sees some sizes before we do (a GIF's frame, a TIFF's tile); it raises at twice its limit.
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    warnings.simplefilter("ignore")
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each would hold images of its own
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
            mask = read_hole(normalize(image))
            decoded = replace(decoded, hole=to_png(mask, limits.max_bytes), white=white_box(mask))
        return decoded


def decode_mask(data: bytes, limits: Limits, defer_bytes: int | None = None) -> DecodedImage:
    """Decode a mask as it was drawn: white, or drawn on transparent, where the image is to be regenerated.

    Raises:
        EmptyMask: it would change no pixel.
        TooLarge, Unreadable, Deferred: as `decode`.
    """
    with _opened(data, limits, defer_bytes) as (image, _):
        format = _format_of(image)
        mask, source = read_drawn(normalize(image, is_mask=True))
        return _store_mask(mask, format, source, limits)


def decode_alpha_mask(data: bytes, limits: Limits, defer_bytes: int | None = None) -> DecodedImage:
    """Decode an image whose transparent part is to be regenerated, as the mask that is white there.

    Raises:
        EmptyMask: no part of the image is transparent.
        TooLarge, Unreadable, Deferred: as `decode`.
    """
    with _opened(data, limits, defer_bytes) as (image, _):
        format = _format_of(image)
        return _store_mask(read_hole(normalize(image)), format, "what is transparent", limits)


def decode_inverted_mask(data: bytes, limits: Limits, defer_bytes: int | None = None) -> DecodedImage:
    """As `decode_mask`, for a mask that is black where the image is to be regenerated."""
    with _opened(data, limits, defer_bytes) as (image, _):
        format = _format_of(image)
        mask, source = read_drawn(normalize(image, is_mask=True))
        mask = ImageOps.invert(mask)
        if white_box(mask) is None:
            raise EmptyMask(
                "changes no pixel: inverted, it is black everywhere; draw black where the image is to be "
                "regenerated"
            )
        return _store_mask(mask, format, source, limits)


def fill(data: bytes, limits: Limits, defer_bytes: int | None = None) -> DecodedImage:
    """Fill an image where its mask is white; both in their stored form, in one piece (`join_files`).

    An image whose mask has another size is returned as it is.

    Raises:
        TooLarge, Unreadable, Deferred: as `decode`.
    """
    image_file, mask_file = split_files(data)
    with _opened(image_file, limits, defer_bytes) as (image, _):
        format, image = _format_of(image), normalize(image)
        with _opened(mask_file, limits, None) as (mask, _):
            if mask.size == image.size:
                image = fill_masked(image, mask.convert("L"))
        stored_format, file = to_file(image, format, limits.max_bytes)
        return DecodedImage(*image.size, format, stored_format, file)


def preprocess(data: bytes, limits: Limits, name: str, options: Options) -> DecodedImage:
    """Decode an image, and return the control image that a preprocessor makes of it, with all options given.

    Raises:
        TooLarge: the control image would be too large to be stored, or takes too much memory.
        Unreadable: as `decode`.
    """
    # Only here: the library takes as much address space as a decoder may have altogether.
    make_map = importlib.import_module("app.inputs.codec.preprocessors").make_map
    with _opened(data, limits, None) as (image, stripped):
        format, image = _format_of(image), normalize(image, _conversion_of(image, stripped))
        control: Image.Image = make_map(image, name, options)
        width, height = control.size
        return DecodedImage(width, height, format, "png", to_png(control, limits.max_bytes))


def _store(image: Image.Image, stripped: Stripped | None, limits: Limits) -> DecodedImage:
    """Return a decoded image's stored form."""
    format, conversion = _format_of(image), _conversion_of(image, stripped)
    if stripped is not None and conversion.transform is None and image.mode in STORED_MODES:
        return DecodedImage(*upright_size(image), format, format, stripped.data, conversion.note)
    image = normalize(image, conversion)
    stored_format, file = to_file(image, format, limits.max_bytes)
    return DecodedImage(*image.size, format, stored_format, file, conversion.note)


def _store_mask(mask: Image.Image, format: str, source: str | None, limits: Limits) -> DecodedImage:
    file = to_png(mask, limits.max_bytes)
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
            check_header(image, data, limits, defer_bytes)
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
        raise too_many_pixels(limits, "more") from None
    except Exception as error:  # noqa: BLE001  # decoders raise many types on broken bytes
        raise Unreadable(f"is corrupt or truncated: {str(error).strip()}") from None


def _readable() -> tuple[str, ...]:
    """Return the accepted formats that this process can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _describe_unknown(data: bytes) -> str:
    """Say what bytes are that no decoder takes: an unknown format, or the beginning of a known one."""
    name = next((name for name, signature in _SIGNATURES.items() if signature.match(data)), None)
    if name == "HEIF" and name not in _readable():
        return "is a HEIC image, which this service is not set up to read; send it as JPEG, PNG or AVIF"
    if name is not None:
        return f"is corrupt or truncated: it begins like {name}, but the rest cannot be read"
    return "is not an image in a supported format"


def _conversion_of(image: Image.Image, stripped: Stripped | None) -> Conversion:
    profile = image.info.get("icc_profile") if stripped is None else stripped.color_profile
    is_deep = image.mode.startswith(("I", "F"))  # gray, of which 8 bits will be left
    return find_conversion((profile or b"")[:MAX_PROFILE_BYTES], "L" if is_deep else image.mode)


def _format_of(image: Image.Image) -> str:
    # Pillow calls a JPEG with an embedded preview MPO.
    return "jpeg" if image.format == "MPO" else str(image.format).lower()
