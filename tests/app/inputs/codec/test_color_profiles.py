"""Whatever the color profile of an image, what is stored looks the same in sRGB."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image, ImageCms

from app.inputs.codec.decode import decode
from app.inputs.codec.decoded_image import DecodedImage
from app.inputs.codec.limits import Limits
from tests.support.color_profiles import DISPLAY_P3, SRGB, cmyk_profile, gray_profile, rgb_profile
from tests.support.images import encode_image, open_stored

LIMITS = Limits(max_bytes=2**20, max_side=4096, max_pixels=1_000_000, max_decoded_bytes=4_000_000)
GREEN = (40, 160, 80)
P3 = rgb_profile(DISPLAY_P3, "Display P3")


def in_profile(color: tuple[int, int, int], profile: bytes) -> Image.Image:
    """An image of one sRGB color, in the numbers of another profile."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    image = Image.new("RGB", (16, 16), color)
    converted = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), target, outputMode="RGB")
    assert converted is not None
    return converted


def color_of(decoded: DecodedImage) -> tuple[int, ...]:
    color: Any = open_stored(decoded.data).convert("RGB").getpixel((8, 8))
    return tuple(color)


def differ(color: tuple[int, ...], other: tuple[int, ...]) -> int:
    return max(abs(one - two) for one, two in zip(color, other, strict=True))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_photo_in_display_p3_is_stored_in_srgb(format: str) -> None:
    stored = in_profile(GREEN, P3)
    options = {} if format in ("PNG", "TIFF") else {"quality": 100}
    assert differ(stored.getpixel((8, 8)), GREEN) > 20  # type: ignore[arg-type]

    decoded = decode(encode_image(stored, format, icc_profile=P3, **options), LIMITS)

    assert differ(color_of(decoded), GREEN) <= 3
    assert decoded.color_profile == "converted from Display P3 to sRGB"


def test_transparency_palettes_and_orientation_survive_the_conversion() -> None:
    image = in_profile(GREEN, P3).resize((20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    palette, transparent = image.quantize(4), image.copy()
    transparent.putalpha(100)

    turned = decode(encode_image(image, icc_profile=P3, exif=exif), LIMITS)

    assert (turned.width, turned.height) == (10, 20)
    assert differ(color_of(turned), GREEN) <= 3
    assert differ(color_of(decode(encode_image(palette, icc_profile=P3), LIMITS)), GREEN) <= 3
    hole = open_stored(decode(encode_image(transparent, icc_profile=P3), LIMITS).data)
    assert hole.getpixel((4, 4))[3] == 100  # type: ignore[index]
    assert differ(hole.convert("RGB").getpixel((4, 4)), GREEN) <= 3  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_gray_is_converted_and_stays_gray(mode: str) -> None:
    level: Any = {"L": 128, "LA": (128, 255), "I;16": 128 * 257}[mode]
    data = encode_image(Image.new(mode, (16, 16), level), icc_profile=gray_profile(1.0))

    image = open_stored(decode(data, LIMITS).data)

    assert image.mode == ("LA" if mode == "LA" else "L")
    assert image.convert("L").getpixel((8, 8)) == pytest.approx(188, abs=2)  # linear light, in sRGB's curve


def test_cmyk_is_converted_by_its_own_profile() -> None:
    half = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    data = encode_image(half, "TIFF", icc_profile=cmyk_profile())

    decoded = decode(data, LIMITS)

    assert differ(color_of(decoded), (0, 0, 0)) <= 3  # this profile's cyan is black; without it, it is turquoise
    assert decoded.color_profile == "converted from test CMYK to sRGB"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_file_in_srgb_keeps_its_compressed_pixels(format: str) -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    decoded = decode(encode_image(noise, format, icc_profile=srgb), LIMITS)

    assert decoded.stored_format == format.lower()
    assert open_stored(decoded.data).tobytes() == open_stored(encode_image(noise, format)).tobytes()
    assert decoded.color_profile is None


def test_a_profile_that_only_calls_itself_srgb_is_converted() -> None:
    liar = rgb_profile(DISPLAY_P3, "sRGB IEC61966-2.1")

    assert differ(color_of(decode(encode_image(in_profile(GREEN, P3), icc_profile=liar), LIMITS)), GREEN) <= 3


@pytest.mark.parametrize(
    ("profile", "mode", "reason"),
    [
        (b"not a profile", "RGB", "ignored: the color profile is broken"),
        (P3[:300], "RGB", "ignored: the color profile is broken"),
        (P3[:128] + bytes(len(P3) - 128), "RGB", "ignored: the color profile is broken"),
        (cmyk_profile(), "RGB", "ignored: test CMYK is a profile of CMYK colors, and the image is RGB"),
        (gray_profile(1.0), "RGB", "ignored: test gray is a profile of GRAY colors, and the image is RGB"),
    ],
)
def test_a_profile_of_no_use_is_ignored_and_that_is_said(profile: bytes, mode: str, reason: str) -> None:
    decoded = decode(encode_image(Image.new(mode, (16, 16), GREEN), icc_profile=profile), LIMITS)

    assert color_of(decoded) == GREEN
    assert decoded.color_profile == reason


def test_damaged_profiles_never_make_an_image_unreadable() -> None:
    for profile in (P3, cmyk_profile(), rgb_profile(SRGB)):
        for position in range(0, len(profile), max(1, len(profile) // 15)):
            damaged = profile[:position] + bytes([profile[position] ^ 0xFF]) + profile[position + 1 :]
            image = Image.new("RGB" if b"RGB" in profile else "CMYK", (8, 8))
            assert decode(encode_image(image, "TIFF", icc_profile=damaged), LIMITS).width == 8


def test_a_converted_photo_that_is_too_large_as_png_becomes_a_good_jpeg() -> None:
    # Blurred noise: what a camera sees, hard on PNG and easy on JPEG.
    photo = Image.effect_noise((400, 400), 120).resize((600, 600), Image.Resampling.BICUBIC).convert("RGB")
    data = encode_image(photo, "JPEG", quality=95, icc_profile=P3)
    limits = Limits(max_bytes=len(data) * 3 // 2, max_side=4096, max_pixels=10**6, max_decoded_bytes=4 * 10**6)

    decoded = decode(data, limits)

    assert decoded.stored_format == "jpeg"
    assert len(decoded.data) <= limits.max_bytes
