"""Untrusted images: limits first, then the form in which they are stored."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from PIL import Image

from app.inputs.codec.decode import Unreadable, configure, decode
from app.inputs.codec.limits import Deferred, Limits, TooLarge
from tests.support.images import encode_image, encode_solid, open_stored, png_header

LIMITS = Limits(max_bytes=2**20, max_side=4096, max_pixels=1_000_000, max_decoded_bytes=4_000_000)
FORMATS = ["png", "jpeg", "webp", "gif", "bmp", "tiff", "avif"]


@pytest.fixture(autouse=True)
def pillow_limit() -> Iterator[None]:
    """Restore what `configure` sets for a whole process."""
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    Image.MAX_IMAGE_PIXELS = before


@pytest.mark.parametrize("name", FORMATS)
def test_every_listed_format_is_read(name: str) -> None:
    data = encode_solid("RGB", (40, 24), "red", name.upper())

    decoded = decode(data, LIMITS)

    assert (decoded.width, decoded.height, decoded.format) == (40, 24, name)
    red, green, blue = open_stored(decoded.data).convert("RGB").getpixel((20, 12))  # type: ignore[misc]
    assert red > 245
    assert green < 10
    assert blue < 10


@pytest.mark.parametrize("name", ["PPM", "ICO", "TGA", "PCX", "DDS"])
def test_other_formats_are_refused_although_pillow_reads_them(name: str) -> None:
    with pytest.raises(Unreadable, match="not an image in a supported format"):
        decode(encode_solid("RGB", (32, 32), "red", name), LIMITS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode_solid("RGB", (32, 32), "red", "AVIF")[:200], "begins like AVIF"),
        (encode_solid("RGB", (32, 32), "red", "TIFF")[:40], "begins like TIFF"),
        (encode_solid("RGB", (32, 32), "red", "GIF")[:8], "begins like GIF"),
        (encode_solid("RGB", (32, 32), "red", "WEBP")[:20], "is corrupt or truncated"),
        (encode_solid("RGB", (32, 32), "red", "PNG")[:60], "is corrupt or truncated"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC image"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "not an image in a supported format"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "not an image in a supported format"),
    ],
)
def test_a_broken_file_of_a_known_format_is_not_called_one_of_an_unknown_format(data: bytes, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        decode(data, LIMITS)


@pytest.mark.parametrize("data", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_not_an_image_are_refused(data: bytes) -> None:
    with pytest.raises(Unreadable):
        decode(data, LIMITS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_image_is_refused(name: str) -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    data = encode_image(noise, name.upper())

    with pytest.raises(Unreadable):
        decode(data[: len(data) * 2 // 3], LIMITS)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_bytes_are_either_decoded_or_refused(name: str) -> None:
    data = encode_image(Image.effect_noise((32, 32), 80).convert("RGB"), name.upper())
    refused = 0
    for position in range(0, len(data), max(1, len(data) // 150)):
        damaged = data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]
        try:
            decode(damaged, LIMITS)
        except (Unreadable, TooLarge):
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("size", [(1001, 1000), (1500, 1000), (4096, 4096)])
def test_more_pixels_than_the_limit_are_refused_from_the_header(size: tuple[int, int]) -> None:
    with pytest.raises(TooLarge, match="may have at most 1000000 pixels") as caught:
        decode(png_header(*size), LIMITS)

    assert caught.value.allowed == "width × height ≤ 1000000"


@pytest.mark.parametrize("size", [(1, 4097), (4097, 1)])
def test_a_side_over_the_limit_is_refused_however_few_pixels_there_are(size: tuple[int, int]) -> None:
    with pytest.raises(TooLarge, match="at most 4096 pixels wide and high") as caught:
        decode(png_header(*size), LIMITS)

    assert caught.value.allowed == "sides ≤ 4096"


@pytest.mark.parametrize("size", [(30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_from_the_header(size: tuple[int, int]) -> None:
    configure(LIMITS)

    with pytest.raises(TooLarge):
        decode(png_header(*size), LIMITS)


def test_many_bits_a_pixel_count_beside_the_pixels() -> None:
    deep = bytearray(png_header(800, 800))
    deep[24:26] = bytes([16, 6])  # 16 bits in each of four channels
    deep[29:33] = zlib.crc32(deep[12:29]).to_bytes(4)

    with pytest.raises(TooLarge, match="may decode to at most 4000000 bytes, got 800 × 800 pixels of 64 bits"):
        decode(bytes(deep), LIMITS)


def test_a_webp_counts_as_what_its_decoder_holds() -> None:
    side = 700  # 490,000 pixels: 3.9 MB in the four bytes of other formats, and 4.9 MB as a WebP

    assert decode(encode_solid("RGBA", (side, side), "red"), LIMITS).width == side
    with pytest.raises(TooLarge, match="may decode to at most 4000000 bytes, got 700 × 700 pixels of 80 bits"):
        decode(encode_image(Image.new("RGBA", (side, side)), "WEBP", lossless=True), LIMITS)


def test_a_large_image_is_left_to_another_process_before_it_is_decoded() -> None:
    data = png_header(500, 500)  # whose pixels are missing: decoding it would be an error

    with pytest.raises(Deferred):
        decode(data, LIMITS, defer_bytes=900_000)
    with pytest.raises(Unreadable):
        decode(data, LIMITS, defer_bytes=1_000_000)


@pytest.mark.parametrize("name", ["gif", "webp", "bmp", "tiff"])
def test_the_pixel_limit_applies_to_every_format(name: str) -> None:
    data = encode_solid("RGB", (1200, 1000), "red", name.upper())

    with pytest.raises(TooLarge):
        decode(data, LIMITS)


def test_a_large_webp_canvas_is_refused() -> None:
    frame = encode_solid("RGB", (16, 16), "red", "WEBP")[12:]
    side = (16_383 - 1).to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + side + side
    data = b"RIFF" + struct.pack("<I", 4 + len(extended) + len(frame)) + b"WEBP" + extended + frame
    with pytest.raises((TooLarge, Unreadable)):
        decode(data, LIMITS)


def test_a_gif_frame_larger_than_its_screen_counts() -> None:
    configure(LIMITS)
    data = bytearray(encode_solid("P", (8, 8), 0, "GIF"))
    descriptor = data.index(b",\0\0\0\0\x08\0\x08\0")
    data[descriptor + 5 : descriptor + 9] = struct.pack("<HH", 60_000, 60_000)

    with pytest.raises(TooLarge):
        decode(bytes(data), LIMITS)


def test_the_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° clockwise to show it upright

    decoded = decode(encode_image(image, "JPEG", exif=exif, quality=100), LIMITS)

    assert (decoded.width, decoded.height, decoded.stored_format) == (20, 40, "jpeg")
    upright = open_stored(decoded.data)
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5))[0] > 200  # type: ignore[index]
    assert upright.getpixel((10, 35))[2] > 200  # type: ignore[index]
    assert not upright.getexif()


def test_an_image_with_broken_exif_is_decoded() -> None:
    data = encode_solid("RGB", (16, 8), "red", "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")

    decoded = decode(data, LIMITS)

    assert (decoded.width, decoded.height) == (16, 8)


def test_the_first_frame_of_an_animation_is_decoded() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for name in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encode_image(frames[0], name, save_all=True, append_images=frames[1:])
        decoded = decode(data, LIMITS)
        red, _, blue = open_stored(decoded.data).convert("RGB").getpixel((8, 8))  # type: ignore[misc]
        assert red > 240 > 20 > blue, name


def test_a_jpeg_with_an_embedded_preview_is_a_jpeg() -> None:
    large, small = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (8, 8), "blue")

    decoded = decode(encode_image(large, "MPO", save_all=True, append_images=[small]), LIMITS)

    assert (decoded.width, decoded.format) == (32, "jpeg")


@pytest.mark.parametrize(
    ("mode", "colour", "normal", "expected"),
    [
        ("1", 1, "1", 255),
        ("L", 77, "L", 77),
        ("LA", (77, 128), "LA", (77, 128)),
        ("RGB", (1, 2, 3), "RGB", (1, 2, 3)),
        ("RGBA", (1, 2, 3, 4), "RGBA", (1, 2, 3, 4)),
    ],
)
def test_channels_are_as_they_were(mode: str, colour: object, normal: str, expected: object) -> None:
    image = open_stored(decode(encode_solid(mode, (8, 8), colour), LIMITS).data)

    assert image.mode == normal
    assert image.getpixel((4, 4)) == expected


def test_a_palette_keeps_its_colours_and_transparency() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])

    for name in ("PNG", "GIF"):
        plain = open_stored(decode(encode_image(image, name), LIMITS).data)
        transparent = open_stored(decode(encode_image(image, name, transparency=1), LIMITS).data)

        assert plain.convert("RGB").getpixel((4, 4)) == (10, 200, 30), name
        assert transparent.convert("RGBA").getpixel((4, 4))[3] == 0, name  # type: ignore[index]


def test_a_transparent_colour_stays_transparent() -> None:
    image = Image.new("RGB", (8, 8), "red")
    image.putpixel((0, 0), (0, 255, 0))

    normal = open_stored(decode(encode_image(image, transparency=(0, 255, 0)), LIMITS).data)

    assert normal.convert("RGBA").getpixel((0, 0)) == (0, 255, 0, 0)
    assert normal.convert("RGBA").getpixel((4, 4)) == (255, 0, 0, 255)


def test_cmyk_becomes_rgb() -> None:
    data = encode_solid("CMYK", (8, 8), (0, 255, 255, 0), "JPEG", quality=100)

    image = open_stored(decode(data, LIMITS).data)

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
    mode: str, colour: float, format: str, expected: int
) -> None:
    image = open_stored(decode(encode_solid(mode, (8, 8), colour, format), LIMITS).data)

    assert image.mode == "L"
    assert image.getpixel((4, 4)) == expected


def test_a_16_bit_gradient_keeps_its_order() -> None:
    image = Image.new("I;16", (256, 1))
    for x in range(256):
        image.putpixel((x, 0), x * 257)

    normal = open_stored(decode(encode_image(image), LIMITS).data)

    assert [normal.getpixel((x, 0)) for x in range(256)] == list(range(256))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5.0])
def test_floats_out_of_range_are_decoded(value: float) -> None:
    decoded = decode(encode_solid("F", (8, 8), value, "TIFF"), LIMITS)

    assert open_stored(decoded.data).mode == "L"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_metadata_is_removed_and_the_pixels_stay_compressed_as_they_were(format: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    plain = encode_image(noise, format)
    data = encode_image(noise, format, exif=exif, icc_profile=b"profile" * 1000, dpi=(300, 300), xmp=b"where")

    stored = decode(data, LIMITS).data

    image = open_stored(stored)
    assert len(stored) <= len(plain) + 18 < len(data)  # 18: a WebP's extended header
    assert image.tobytes() == open_stored(plain).tobytes()
    assert not image.getexif()
    assert not {"icc_profile", "xmp", "exif"} & set(image.info)
    assert b"where" not in stored


def test_an_image_that_would_grow_beyond_the_limit_is_refused_with_a_remedy() -> None:
    noise = Image.effect_noise((400, 400), 80)
    cmyk = Image.merge("CMYK", [noise, noise.transpose(Image.Transpose.ROTATE_90), noise, noise])
    data = encode_image(cmyk, "JPEG", quality=10)
    limits = replace(LIMITS, max_bytes=len(data) + 1000)

    with pytest.raises(TooLarge, match="as PNG, in which images of its kind are stored; scale it down"):
        decode(data, limits)
