"""Limits on one image, and whether it keeps to them by what its header says. Decodes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, TiffImagePlugin

#: Bits of a pixel in Pillow's memory; 32 in all other modes.
_MODE_BITS = {"1": 8, "L": 8, "P": 8, "I;16": 16, "I;16L": 16, "I;16B": 16, "I;16N": 16}
#: Pillow decodes any WebP as an animation, for which libwebp holds several images: 14 bytes a pixel at the peak.
_WEBP_BITS = 80
#: AVIF and HEIF have up to four planes of 12 bits in 16, which become 4 bytes a pixel.
_PLANE_BITS = 96
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class TooLarge(Exception):
    """An image over a limit: what was received, and what is allowed."""

    def __init__(self, message: str, allowed: str) -> None:
        self.message, self.allowed = message, allowed
        super().__init__(message)


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


def check_header(image: Image.Image, data: bytes, limits: Limits, defer_bytes: int | None) -> None:
    """Compare what an image's header says with the limits.

    Args:
        data: the file that was received.
        defer_bytes: decoded size from which on the image is left to another process.

    Raises:
        TooLarge: over a limit.
        Deferred: not over a limit, and of more than `defer_bytes`.
    """
    width, height = image.size
    if max(width, height) > limits.max_side:
        message = f"may be at most {limits.max_side} pixels wide and high, got {width} × {height}; scale it down"
        raise TooLarge(message, f"sides ≤ {limits.max_side}")
    if width * height > limits.max_pixels:
        raise too_many_pixels(limits, f"{width} × {height}")
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


def too_many_pixels(limits: Limits, received: str) -> TooLarge:
    """The error for an image with too many pixels."""
    message = f"may have at most {limits.max_pixels} pixels, got {received}; scale it down"
    return TooLarge(message, f"width × height ≤ {limits.max_pixels}")
