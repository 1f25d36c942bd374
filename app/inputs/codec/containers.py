"""Removes from PNG, JPEG and WebP files what does not decide their pixels, without decoding them.

Text, color profiles, previews, further frames and EXIF are left out; of EXIF the orientation is retained. The
compressed pixels are copied as they are. The color profile is returned beside the file, since it decides how the
pixels look. Sources: PNG third edition, ITU T.81, RFC 9649 (WebP), ICC.1:2022 annex B (profiles in JPEG).
"""

from __future__ import annotations

import re
import struct
import zlib
from contextlib import suppress
from typing import NamedTuple

from PIL import Image

#: Scans of a JPEG. Progressive files have about ten; each decodes the whole image once more.
MAX_JPEG_SCANS = 100
#: Chunks or segments of a file; each costs time and memory. A PNG of 32 MiB in chunks of 4 KiB has 8,192.
MAX_PARTS = 20_000
#: EXIF longer than a JPEG segment can hold is not read.
_MAX_EXIF_BYTES = 65_535
#: Bytes of a color profile that are read; of a longer one the rest is missing, so it counts as broken. Those of
#: printing presses have up to 3 MiB.
MAX_PROFILE_BYTES = 4 * 2**20

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_WEBP_CHUNKS = frozenset({b"VP8X", b"ALPH", b"VP8 ", b"VP8L"})
#: Bits of the first byte of a VP8X chunk.
_WEBP_ALPHA, _WEBP_EXIF = 0x10, 0x08
#: A JPEG marker; in compressed data FF is followed by 00 or a restart marker.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOI, _EOI, _SOS, _APP0, _APP14, _APP15, _COM, _TEM = 0xD8, 0xD9, 0xDA, 0xE0, 0xEE, 0xEF, 0xFE, 0x01
#: Application segments that decide the color space: JFIF in APP0, Adobe in APP14.
_COLOR_SEGMENTS = ((_APP0, b"JFIF\0"), (_APP14, b"Adobe"))
_APP2, _PROFILE_SEGMENT = 0xE2, b"ICC_PROFILE\0"


class TooManyScans(Exception):
    """A JPEG with more than `MAX_JPEG_SCANS` scans."""


class TooManyParts(Exception):
    """A file of more than `MAX_PARTS` chunks or segments."""


class Stripped(NamedTuple):
    """A file without metadata, and the ICC color profile that it had; empty if it had none."""

    data: bytes
    color_profile: bytes


def strip_metadata(data: bytes) -> Stripped | None:
    """Return the file without metadata: exactly one image, and its orientation.

    Returns:
        None for other formats, animated WebP, and files whose structure is broken.

    Raises:
        TooManyScans, TooManyParts
    """
    if data.startswith(_PNG_SIGNATURE):
        return _strip_png(data)
    if data.startswith(b"\xff\xd8"):
        return _strip_jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _strip_webp(data)
    return None


def _count_part(count: int) -> int:
    if count == MAX_PARTS:
        raise TooManyParts
    return count + 1


def _strip_png(data: bytes) -> Stripped | None:
    view, at, count = memoryview(data), len(_PNG_SIGNATURE), 0
    parts, exif, profile = [view[:at]], b"", b""
    while at + 12 <= len(data):
        count = _count_part(count)
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4])
        if end > len(data):
            return None
        if kind in _PNG_CHUNKS:
            parts.append(view[at:end])
        elif kind == b"eXIf":
            exif = exif or data[at + 8 : at + 8 + _MAX_EXIF_BYTES]
        elif kind == b"iCCP":
            profile = profile or _png_profile(data[at + 8 : end - 4])
        if kind == b"IEND":
            parts[2:2] = [memoryview(_png_chunk(b"eXIf", tags)) for tags in _oriented(exif)]
            return Stripped(b"".join(parts), profile)
        at = end
    return None


def _png_profile(content: bytes) -> bytes:
    """Return the profile in an iCCP chunk: a name, a null byte, the compression method, a zlib stream."""
    name, _, packed = content.partition(b"\0")
    unpacker = zlib.decompressobj()
    try:
        return unpacker.decompress(packed[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return name or content  # broken, and said to be so


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _strip_jpeg(data: bytes) -> Stripped | None:
    view, at, scans, count = memoryview(data), 2, 0, 0
    parts, exif = [view[:2]], b""
    profile: dict[int, bytes] = {}
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        count = _count_part(count)
        start, kind = found.start(), data[found.start() + 1]
        if scans:  # the compressed data before this marker
            parts.append(view[at:start])
        if kind == _EOI:
            parts[1:1] = [memoryview(_jpeg_exif(tags)) for tags in _oriented(exif)]
            whole = b"".join(profile[number] for number in sorted(profile))[:MAX_PROFILE_BYTES]
            return Stripped(b"".join([*parts, view[start : start + 2]]), whole)
        at = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        if kind in (_SOI, _TEM) or at < start + 4 or at > len(data):
            return None
        if kind == _SOS:
            scans += 1
            if scans > MAX_JPEG_SCANS:
                raise TooManyScans
        content = data[start + 4 : start + 10]
        if not (_APP0 <= kind <= _APP15 or kind == _COM) or any(
            kind == marker and content.startswith(name) for marker, name in _COLOR_SEGMENTS
        ):
            parts.append(view[start:at])
        elif kind == _APP0 + 1 and content == b"Exif\0\0":
            exif = exif or data[start + 10 : at]
        elif kind == _APP2 and data[start + 4 : start + 16] == _PROFILE_SEGMENT and start + 18 <= at:
            profile.setdefault(data[start + 16], data[start + 18 : at])  # its number, their count, the content
    return None


def _jpeg_exif(tags: bytes) -> bytes:
    content = b"Exif\0\0" + tags
    return struct.pack(">BBH", 0xFF, _APP0 + 1, len(content) + 2) + content


def _strip_webp(data: bytes) -> Stripped | None:
    view, at = memoryview(data), 12
    end_of_file = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    chunks: list[bytes | memoryview] = []
    exif, profile, extended, count = b"", b"", False, 0
    while at + 8 <= end_of_file:
        count = _count_part(count)
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length + length % 2
        if at + 8 + length > len(data) or kind in (b"ANIM", b"ANMF"):
            return None
        if kind in _WEBP_CHUNKS:
            extended = extended or kind == b"VP8X"
            chunks += [view[at : at + 8 + length], b"\0" * (length % 2)]
        elif kind == b"EXIF":
            exif = exif or data[at + 8 : at + 8 + min(length, _MAX_EXIF_BYTES)]
        elif kind == b"ICCP":
            profile = profile or data[at + 8 : at + 8 + min(length, MAX_PROFILE_BYTES)]
        at = end
    if extended:
        tags = _oriented(exif)
        header = bytearray(chunks[0])
        if header[:4] != b"VP8X" or len(header) < 9:
            return None
        header[8] = header[8] & _WEBP_ALPHA | (_WEBP_EXIF if tags else 0)
        chunks = [bytes(header), *chunks[1:], *(_webp_chunk(b"EXIF", content) for content in tags)]
    content = b"WEBP" + b"".join(chunks)
    return Stripped(b"RIFF" + struct.pack("<I", len(content)) + content, profile)


def _webp_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _oriented(exif: bytes) -> list[bytes]:
    """EXIF that holds nothing but the orientation; empty where the image is upright already."""
    orientation = 1
    with suppress(Exception):  # broken EXIF does not make the image unusable
        tags = Image.Exif()
        tags.load(exif)
        orientation = int(tags.get(0x0112, 1))
    if orientation not in range(2, 9):
        return []
    # TIFF header, one directory with one entry: tag, type SHORT, count 1, value; no further directory.
    return [struct.pack(">2sHLHHHLHHL", b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)]
