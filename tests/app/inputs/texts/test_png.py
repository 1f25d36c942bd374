"""Texts in PNG files: of every kind, broken ones left out, compressed ones unpacked up to a limit."""

from __future__ import annotations

import struct
import zlib

from PIL.PngImagePlugin import PngInfo

from app.inputs.texts.png import read_texts
from tests.support.images import draw_shape, encode_image

LIMIT = 256 * 1024


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_every_kind_of_text_is_read_and_of_one_keyword_the_first() -> None:
    info = PngInfo()
    info.add_text("plain", "é")
    info.add_text("packed", "x" * 5000, zip=True)
    info.add_itxt("international", "ü—", zip=True)
    info.add_text("plain", "another")

    found = read_texts(encode_image(draw_shape(), pnginfo=info))

    assert found == {"plain": "é", "packed": "x" * 5000, "international": "ü—"}


def test_what_is_broken_is_left_out() -> None:
    broken = (
        chunk(b"zTXt", b"a\0\0not compressed"), chunk(b"iTXt", b"b\0\0"), chunk(b"tEXt", b"\0text"),
        chunk(b"iTXt", b"c\0\1\0\0\0no"), chunk(b"tEXt", b"d\0fine"), struct.pack(">I4s", 2**31, b"tEXt"),
    )  # fmt: skip

    assert read_texts(png(*broken)) == {"d": "fine"}


def test_a_text_that_unpacks_without_end_is_cut_off() -> None:
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 50_000_000))

    assert read_texts(png(bomb)) == {"a": "x" * LIMIT}


def test_broken_and_repeated_texts_are_not_unpacked_without_end() -> None:
    many = [chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 1000)) for _ in range(100)]

    assert read_texts(png(*many, chunk(b"tEXt", b"late\0text"))) == {"a": "x" * 1000}
