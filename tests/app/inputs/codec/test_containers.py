"""Metadata is removed from files without decoding them; the compressed pixels stay as they are."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from app.inputs.codec.containers import (
    MAX_JPEG_SCANS,
    MAX_PARTS,
    MAX_PROFILE_BYTES,
    TooManyParts,
    TooManyScans,
    strip_metadata,
)
from tests.support.images import encode_image, encode_solid, open_stored

NOISE = Image.effect_noise((48, 32), 90).convert("RGB")


def strip(data: bytes) -> bytes | None:
    """The file without metadata, as far as its structure allows."""
    stripped = strip_metadata(data)
    return None if stripped is None else stripped.data


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "where I live"
    return exif


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_of_exif_only_the_orientation_is_left(format: str, orientation: int) -> None:
    data = encode_image(NOISE, format, exif=oriented(orientation))

    stripped = strip(data)

    assert stripped is not None
    assert b"where I live" not in stripped
    assert open_stored(stripped).size == open_stored(data).size
    assert open_stored(stripped).tobytes() == open_stored(data).tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_png_keeps_the_pixels_of_every_mode(mode: str) -> None:
    data = encode_image(NOISE.convert(mode))

    assert open_stored(strip(data) or b"").tobytes() == open_stored(data).tobytes()


@pytest.mark.parametrize("options", [{"progressive": True}, {"quality": 100}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_keeps_the_pixels_of_every_kind(mode: str, options: dict[str, object]) -> None:
    data = encode_image(NOISE.convert(mode), "JPEG", comment=b"x" * 1000, **options)

    stripped = strip(data)

    assert stripped is not None
    assert len(stripped) <= len(data) - 1000
    assert open_stored(stripped).tobytes() == open_stored(data).tobytes()


@pytest.mark.parametrize("options", [{"quality": 50}, {"lossless": True}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_webp_keeps_the_pixels_of_every_kind(mode: str, options: dict[str, object]) -> None:
    image = NOISE.convert(mode)
    if mode == "RGBA":
        image.putalpha(NOISE.convert("L"))
    data = encode_image(image, "WEBP", icc_profile=b"x" * 1001, **options)

    stripped = strip(data)

    assert stripped is not None
    assert len(stripped) < len(data) - 1000
    assert open_stored(stripped).tobytes() == open_stored(data).tobytes()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [500, 200_000])
def test_a_color_profile_is_taken_out_whole(format: str, size: int) -> None:
    profile = bytes(at * at % 251 for at in range(size))  # the longer one takes four segments of a JPEG

    stripped = strip_metadata(encode_image(NOISE, format, icc_profile=profile))

    assert stripped is not None
    assert stripped.color_profile == profile
    assert profile[:100] not in stripped.data


def test_a_color_profile_that_unpacks_to_gigabytes_is_cut_off() -> None:
    plain = encode_solid("RGB", (8, 8), "red")
    bomb = b"profile\0\0" + zlib.compress(b"\0" * 2**26)
    chunk = struct.pack(">I", len(bomb)) + b"iCCP" + bomb + struct.pack(">I", zlib.crc32(b"iCCP" + bomb))

    stripped = strip_metadata(plain[:33] + chunk + plain[33:])

    assert stripped is not None
    assert len(stripped.color_profile) == MAX_PROFILE_BYTES


def test_text_that_unpacks_to_gigabytes_is_never_unpacked() -> None:
    plain = encode_solid("RGB", (8, 8), "red")
    bomb = b"Comment\0\0" + zlib.compress(b"\0" * 2**24)
    chunk = struct.pack(">I", len(bomb)) + b"zTXt" + bomb + struct.pack(">I", zlib.crc32(b"zTXt" + bomb))

    assert strip(plain[:33] + chunk * 50 + plain[33:]) == plain


def test_the_previews_behind_a_jpeg_are_left_out() -> None:
    data = encode_image(NOISE, "MPO", save_all=True, append_images=[NOISE])

    stripped = strip(data)

    assert stripped is not None
    assert len(stripped) < len(data) * 0.6
    assert Image.open(io.BytesIO(stripped)).format == "JPEG"


def test_the_further_frames_of_an_animated_png_are_left_out() -> None:
    data = encode_image(NOISE, "PNG", save_all=True, append_images=[NOISE.rotate(90), NOISE.rotate(180)])

    stripped = strip(data)

    assert stripped is not None
    assert b"fdAT" not in stripped
    assert open_stored(stripped).tobytes() == NOISE.tobytes()


def test_an_animated_webp_is_left_to_the_decoder() -> None:
    assert strip(encode_image(NOISE, "WEBP", save_all=True, append_images=[NOISE.rotate(90)])) is None


def test_a_jpeg_with_more_scans_than_anybody_needs_is_refused() -> None:
    data = encode_image(NOISE, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]

    with pytest.raises(TooManyScans):
        strip(data[:-2] + scan * MAX_JPEG_SCANS + data[-2:])


@pytest.mark.parametrize(
    ("format", "after", "part"),
    [
        ("PNG", 33, struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))),
        ("JPEG", 2, b"\xff\xdd\0\4\0\0"),
        ("WEBP", 12, b"JUNK\0\0\0\0"),
    ],
)
def test_a_file_with_more_parts_than_anybody_needs_is_refused(format: str, after: int, part: bytes) -> None:
    data = encode_image(NOISE, format)

    def with_parts(count: int) -> bytes:
        whole = bytearray(data[:after] + part * count + data[after:])
        if format == "WEBP":
            whole[4:8] = struct.pack("<I", len(whole) - 8)
        return bytes(whole)

    assert open_stored(strip(with_parts(1000)) or b"").tobytes() == open_stored(data).tobytes()
    with pytest.raises(TooManyParts):
        strip(with_parts(MAX_PARTS))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_file_that_is_cut_off_is_left_to_the_decoder(format: str) -> None:
    data = encode_image(NOISE, format)
    for length in range(0, len(data) - 2, 37):
        assert strip(data[:length]) in (None, data[:length])


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\0", b"RIFF\0\0\0\0WEBP", b"\x89PNG\r\n\x1a\n"]
)
def test_broken_and_foreign_files_are_left_to_the_decoder(data: bytes) -> None:
    assert strip(data) in (None, data, b"RIFF\4\0\0\0WEBP")
