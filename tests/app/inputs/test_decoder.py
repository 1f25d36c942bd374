"""Untrusted images: limits first, then one normalized form."""

from __future__ import annotations

import hashlib
import resource
import struct
import time

import pytest
from PIL import Image

from app.inputs.decoder import ImageDecoder
from contracts.errors import ImageTooLarge, NotAnImage
from tests.support.images import encode_image, encode_solid, open_png, png_header

FORMATS = ["png", "jpeg", "webp", "gif", "bmp", "tiff"]


@pytest.fixture
def decoder() -> ImageDecoder:
    return ImageDecoder(max_bytes=2**20, max_pixels=1_000_000)


@pytest.mark.parametrize("name", FORMATS)
def test_every_listed_format_is_read(decoder: ImageDecoder, name: str) -> None:
    data = encode_solid("RGB", (40, 24), "red", name.upper())

    decoded = decoder.decode(data, "image")

    assert (decoded.width, decoded.height, decoded.format) == (40, 24, name)
    assert decoded.sha256 == hashlib.sha256(data).hexdigest()
    red, green, blue = open_png(decoded.png).convert("RGB").getpixel((20, 12))  # type: ignore[misc]
    assert red > 245
    assert green < 10
    assert blue < 10


@pytest.mark.parametrize("name", ["PPM", "ICO", "TGA", "PCX", "DDS"])
def test_other_formats_are_refused_although_pillow_reads_them(decoder: ImageDecoder, name: str) -> None:
    with pytest.raises(NotAnImage, match="not an image in a supported format"):
        decoder.decode(encode_solid("RGB", (32, 32), "red", name), "image")


@pytest.mark.parametrize("data", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_not_an_image_are_refused_by_field(decoder: ImageDecoder, data: bytes) -> None:
    with pytest.raises(NotAnImage) as caught:
        decoder.decode(data, "controls.0.image")

    assert caught.value.problem.field == "controls.0.image"
    assert caught.value.problem.allowed == FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_image_is_refused(decoder: ImageDecoder, name: str) -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    data = encode_image(noise, name.upper())

    with pytest.raises(NotAnImage):
        decoder.decode(data[: len(data) * 2 // 3], "image")


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_bytes_are_either_decoded_or_refused(decoder: ImageDecoder, name: str) -> None:
    data = encode_image(Image.effect_noise((32, 32), 80).convert("RGB"), name.upper())
    refused = 0
    for position in range(0, len(data), max(1, len(data) // 150)):
        damaged = data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]
        try:
            decoder.decode(damaged, "image")
        except (NotAnImage, ImageTooLarge):
            refused += 1
    assert refused > 0


def test_more_bytes_than_the_limit_are_refused_unread() -> None:
    decoder = ImageDecoder(max_bytes=100, max_pixels=1_000_000)

    with pytest.raises(ImageTooLarge, match="larger than 100 bytes") as caught:
        decoder.decode(b"x" * 101, "image")

    assert caught.value.problem.allowed == "up to 100 bytes"


@pytest.mark.parametrize("size", [(1001, 1000), (1500, 1000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_without_decoding(decoder: ImageDecoder, size: tuple[int, int]) -> None:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()

    with pytest.raises(ImageTooLarge) as caught:
        decoder.decode(png_header(*size), "mask_image")

    assert caught.value.problem.field == "mask_image"
    assert caught.value.problem.allowed == "width × height ≤ 1000000"
    assert time.monotonic() - started < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024


@pytest.mark.parametrize("name", ["gif", "webp", "bmp", "tiff"])
def test_the_pixel_limit_applies_to_every_format(name: str) -> None:
    data = encode_solid("RGB", (1200, 1000), "red", name.upper())

    with pytest.raises(ImageTooLarge):
        ImageDecoder(max_bytes=2**24, max_pixels=1_000_000).decode(data, "image")


def test_a_large_webp_canvas_costs_no_memory(decoder: ImageDecoder) -> None:
    frame = encode_solid("RGB", (16, 16), "red", "WEBP")[12:]
    side = (16_383 - 1).to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + side + side
    data = b"RIFF" + struct.pack("<I", 4 + len(extended) + len(frame)) + b"WEBP" + extended + frame
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises((ImageTooLarge, NotAnImage)):
        decoder.decode(data, "image")

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024


def test_a_gif_frame_larger_than_its_screen_counts(decoder: ImageDecoder) -> None:
    data = bytearray(encode_solid("P", (8, 8), 0, "GIF"))
    descriptor = data.index(b",\0\0\0\0\x08\0\x08\0")
    data[descriptor + 5 : descriptor + 9] = struct.pack("<HH", 60_000, 60_000)

    with pytest.raises(ImageTooLarge):
        decoder.decode(bytes(data), "image")


def test_the_exif_orientation_is_applied(decoder: ImageDecoder) -> None:
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° clockwise to show it upright

    decoded = decoder.decode(encode_image(image, "JPEG", exif=exif, quality=100), "image")

    assert (decoded.width, decoded.height) == (20, 40)
    upright = open_png(decoded.png)
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5))[0] > 200  # type: ignore[index]
    assert upright.getpixel((10, 35))[2] > 200  # type: ignore[index]
    assert not upright.getexif()


def test_an_image_with_broken_exif_is_decoded(decoder: ImageDecoder) -> None:
    data = encode_solid("RGB", (16, 8), "red", "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")

    decoded = decoder.decode(data, "image")

    assert (decoded.width, decoded.height) == (16, 8)


def test_the_first_frame_of_an_animation_is_decoded(decoder: ImageDecoder) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for name in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encode_image(frames[0], name, save_all=True, append_images=frames[1:])
        decoded = decoder.decode(data, "image")
        red, _, blue = open_png(decoded.png).convert("RGB").getpixel((8, 8))  # type: ignore[misc]
        assert red > 240 > 20 > blue, name


def test_a_jpeg_with_an_embedded_preview_is_a_jpeg(decoder: ImageDecoder) -> None:
    large, small = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (8, 8), "blue")

    decoded = decoder.decode(encode_image(large, "MPO", save_all=True, append_images=[small]), "image")

    assert (decoded.width, decoded.format) == (32, "jpeg")


@pytest.mark.parametrize(
    ("mode", "colour", "normal", "expected"),
    [
        ("1", 1, "L", 255),
        ("L", 77, "L", 77),
        ("LA", (77, 128), "RGBA", (77, 77, 77, 128)),
        ("RGB", (1, 2, 3), "RGB", (1, 2, 3)),
        ("RGBA", (1, 2, 3, 4), "RGBA", (1, 2, 3, 4)),
    ],
)
def test_channels_are_kept_or_widened(
    decoder: ImageDecoder, mode: str, colour: object, normal: str, expected: object
) -> None:
    image = open_png(decoder.decode(encode_solid(mode, (8, 8), colour), "image").png)

    assert image.mode == normal
    assert image.getpixel((4, 4)) == expected


def test_a_palette_becomes_colours(decoder: ImageDecoder) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])

    plain = open_png(decoder.decode(encode_image(image), "image").png)
    transparent = open_png(decoder.decode(encode_image(image, transparency=1), "image").png)

    assert (plain.mode, plain.getpixel((4, 4))) == ("RGB", (10, 200, 30))
    assert (transparent.mode, transparent.getpixel((4, 4))) == ("RGBA", (10, 200, 30, 0))


def test_a_transparent_colour_becomes_alpha(decoder: ImageDecoder) -> None:
    image = Image.new("RGB", (8, 8), "red")
    image.putpixel((0, 0), (0, 255, 0))

    normal = open_png(decoder.decode(encode_image(image, transparency=(0, 255, 0)), "image").png)

    assert normal.mode == "RGBA"
    assert normal.getpixel((0, 0)) == (0, 255, 0, 0)
    assert normal.getpixel((4, 4)) == (255, 0, 0, 255)


def test_cmyk_becomes_rgb(decoder: ImageDecoder) -> None:
    data = encode_solid("CMYK", (8, 8), (0, 255, 255, 0), "JPEG", quality=100)

    image = open_png(decoder.decode(data, "image").png)

    assert image.mode == "RGB"
    assert image.getpixel((4, 4))[0] > 245 > 10 > image.getpixel((4, 4))[1]  # type: ignore[index]


@pytest.mark.parametrize(
    ("mode", "colour", "format", "expected"),
    [
        ("I;16", 65_535, "PNG", 255),
        ("I;16", 32_896, "PNG", 128),
        ("I;16", 257, "PNG", 1),
        ("I;16", 40_000, "TIFF", 156),
        ("I;16B", 40_000, "TIFF", 156),
        ("I", 65_535, "TIFF", 255),
        ("I", 200, "TIFF", 200),
        ("I", 2_000_000_000, "TIFF", 255),
        ("F", 0.5, "TIFF", 128),
        ("F", 200.0, "TIFF", 200),
        ("F", 40_000.0, "TIFF", 156),
    ],
)
def test_grays_of_more_than_8_bits_are_scaled_and_not_clipped(
    decoder: ImageDecoder, mode: str, colour: float, format: str, expected: int
) -> None:
    image = open_png(decoder.decode(encode_solid(mode, (8, 8), colour, format), "image").png)

    assert image.mode == "L"
    assert image.getpixel((4, 4)) == expected


def test_a_16_bit_gradient_keeps_its_order(decoder: ImageDecoder) -> None:
    image = Image.new("I;16", (256, 1))
    for x in range(256):
        image.putpixel((x, 0), x * 257)

    normal = open_png(decoder.decode(encode_image(image), "image").png)

    assert [normal.getpixel((x, 0)) for x in range(256)] == list(range(256))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5.0])
def test_floats_out_of_range_are_decoded(decoder: ImageDecoder, value: float) -> None:
    decoded = decoder.decode(encode_solid("F", (8, 8), value, "TIFF"), "image")

    assert open_png(decoded.png).mode == "L"


def test_metadata_is_removed(decoder: ImageDecoder) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    data = encode_solid("RGB", (8, 8), "red", "PNG", exif=exif, icc_profile=b"profile", dpi=(300, 300))

    image = open_png(decoder.decode(data, "image").png)

    assert not image.getexif()
    assert not image.info
