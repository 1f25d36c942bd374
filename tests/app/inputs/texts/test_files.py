"""Texts in files of each kind, as Pillow writes them; what is broken or hostile ends nothing."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import ExifTags, Image

from app.inputs.texts.files import read_texts
from contracts.errors import NotAnImage
from tests.support.images import draw_shape, encode_image

TEXT = "a red circle — ü\nSteps: 9"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">{&quot;c&quot;: '
    "&quot;a &amp; b&quot;}</rdf:li></rdf:Alt></exif:UserComment></x:xmpmeta>"
)


def with_comment(file_format: str, comment: bytes) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "described"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    file = io.BytesIO()
    draw_shape().save(file, file_format, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("file_format", ["jpeg", "webp", "png"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + TEXT.encode("utf-16-be"),
        b"UNICODE\0" + TEXT.encode("utf-16-le"),
        b"UNICODE\0" + TEXT.encode("utf-16"),
        b"ASCII\0\0\0" + TEXT.encode(),
        bytes(8) + TEXT.encode(),
        TEXT.encode(),
    ],
    ids=["big-endian", "little-endian", "marked", "ascii", "undefined", "bare"],
)
def test_exif_is_read_in_every_encoding_that_programs_write(file_format: str, comment: bytes) -> None:
    assert read_texts(with_comment(file_format, comment), "image") == {
        "ImageDescription": "described",
        "UserComment": TEXT,
    }


@pytest.mark.parametrize("file_format", ["jpeg", "webp"])
def test_the_user_comment_of_xmp_is_read(file_format: str) -> None:
    file = io.BytesIO()
    draw_shape().save(file, file_format, xmp=XMP.encode())

    assert read_texts(file.getvalue(), "image") == {"exif:UserComment": '{"c": "a & b"}'}


@pytest.mark.parametrize("file_format", ["jpeg", "webp", "png"])
def test_a_file_that_is_cut_anywhere_has_the_texts_before_the_cut(file_format: str) -> None:
    whole = with_comment(file_format, b"ASCII\0\0\0text")
    head = 16

    found = [read_texts(whole[:size], "image") for size in range(head, len(whole))]

    assert found[0] == {}
    assert all(texts.keys() <= {"ImageDescription", "UserComment"} for texts in found)


def test_offsets_that_lead_nowhere_or_in_circles_end_nothing() -> None:
    entry = struct.Struct("<HHII")
    circle = b"II*\0" + struct.pack("<IH", 8, 1) + entry.pack(0x8769, 4, 1, 8)
    far = entry.pack(0x10E, 2, 2**31, 2**32 - 1) + entry.pack(0x8769, 4, 1, 99)
    nowhere = b"II*\0" + struct.pack("<IH", 8, 2) + far
    for block in (circle, nowhere, b"II*\0" + struct.pack("<I", 2**32 - 1), b"MM", b""):
        content = b"Exif\0\0" + block
        segment = b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
        jpeg = b"\xff\xd8" + segment + b"\xff\xff\xd0\xff\xe1\0\0\xff\xd9"
        assert read_texts(jpeg, "image") == {}


def test_other_files_are_refused_with_the_formats_that_are_read() -> None:
    with pytest.raises(NotAnImage, match="not a PNG, JPEG or WebP file") as error:
        read_texts(encode_image(draw_shape(), "gif"), "file")

    assert (error.value.problem.field, error.value.problem.allowed) == ("file", ["png", "jpeg", "webp"])
