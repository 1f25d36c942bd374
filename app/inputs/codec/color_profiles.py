"""Converts decoded images to sRGB, in which models read and write, by the color profile in the client's file.

Runs in the decoder's processes, since LittleCMS reads the profile. Knows neither fields nor files.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import cast

from PIL import Image, ImageCms

#: Color space of a profile, by its ICC signature -> Pillow's mode of the pixels that it describes.
_MODE_OF_SPACE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
#: Levels by which colors may differ for a profile to count as sRGB: files with sRGB itself stay as they are.
_SAME_LEVELS = 2
#: Values of each channel at which a profile is compared with sRGB.
_SAMPLES = (0, 51, 102, 153, 204, 255)
_MAX_NAME_LENGTH = 60
_BROKEN = "ignored: the color profile is broken"


@dataclass(frozen=True)
class Conversion:
    """Conversion of an image's colors to sRGB.

    Attributes:
        note: what is done about the profile, in words for the client; None where nothing need be done.
        mode: Pillow's mode of the pixels that the transform takes.
        transform: None where the colors stay as they are.
    """

    note: str | None = None
    mode: str = "RGB"
    transform: ImageCms.ImageCmsTransform | None = None

    def apply(self, image: Image.Image) -> Image.Image:
        """Return an image of 8 bits a channel in sRGB, as transparent as it was; gray stays gray."""
        if self.transform is None:
            return image
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        pixels = image if image.mode == self.mode else image.convert(self.mode)
        converted = cast("Image.Image", ImageCms.applyTransform(pixels, self.transform))
        if self.mode == "L":
            converted = converted.convert("L")
        if alpha is not None:
            converted.putalpha(alpha)
        return converted


def find_conversion(profile: bytes, mode: str) -> Conversion:
    """Return how an image with this ICC profile, which may be empty, becomes sRGB; a profile of no use is ignored.

    Args:
        mode: Pillow's mode of the image; of gray with more than 8 bits: `L`.
    """
    if not profile:
        return Conversion()
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space, name = source.profile.xcolor_space.strip(), _name_of(source)
        pixels = _MODE_OF_SPACE.get(space)
        if pixels is None:
            return Conversion(f"ignored: {name} is a profile of {space} colors, not of RGB, gray or CMYK")
        if not _describes(pixels, mode):
            return Conversion(f"ignored: {name} is a profile of {space} colors, and the image is {mode}")
        transform = _transform(source, pixels)
        if pixels == "RGB" and _is_srgb(transform):
            return Conversion()
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return Conversion(_BROKEN)
    return Conversion(f"converted from {name} to sRGB", pixels, transform)


def _name_of(profile: ImageCms.ImageCmsProfile) -> str:
    """Return the profile's own name, as one short line."""
    name = " ".join((profile.profile.profile_description or "").split())
    return "".join(letter for letter in name if letter.isprintable())[:_MAX_NAME_LENGTH] or "an unnamed profile"


def _describes(pixels: str, mode: str) -> bool:
    """Whether a profile of these pixels describes an image; of gray, an RGB profile describes equal channels."""
    if "CMYK" in (pixels, mode):
        return pixels == mode
    return pixels == "RGB" or mode in ("1", "L", "LA")


def _transform(source: ImageCms.ImageCmsProfile, pixels: str) -> ImageCms.ImageCmsTransform:
    """Return the conversion by the rendering intent that the profile itself asks for."""
    intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
    is_relative = intent is ImageCms.Intent.RELATIVE_COLORIMETRIC
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION if is_relative else ImageCms.Flags.NONE
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), pixels, "RGB", intent, flags)


def _is_srgb(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether a transform leaves colors as they are, whatever the profile is called."""
    colors = bytes(
        level for red in _SAMPLES for green in _SAMPLES for blue in _SAMPLES for level in (red, green, blue)
    )
    samples = Image.frombytes("RGB", (len(_SAMPLES) ** 2, len(_SAMPLES)), colors)
    result = cast("Image.Image", ImageCms.applyTransform(samples, transform)).tobytes()
    return all(abs(before - after) <= _SAME_LEVELS for before, after in zip(colors, result, strict=True))
