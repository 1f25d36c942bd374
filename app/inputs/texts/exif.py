"""Reads the texts in a block of EXIF that programs write parameters into. Source: EXIF 2.32, 4.6 (TIFF 6.0, 2).

Follows no pointer but the one to EXIF's own directory, and reads each directory once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Literal

USER_COMMENT, IMAGE_DESCRIPTION, MAKE, MODEL = "UserComment", "ImageDescription", "Make", "Model"
_NAMES = {0x010E: IMAGE_DESCRIPTION, 0x010F: MAKE, 0x0110: MODEL, 0x9286: USER_COMMENT}
_EXIF_DIRECTORY = 0x8769
_MAX_ENTRIES = 256
#: Types of TIFF whose values are bytes: BYTE, ASCII, UNDEFINED.
_BYTES = frozenset({1, 2, 7})
_CODE_BYTES = 8


def read_texts(block: bytes) -> Mapping[str, str]:
    """Return the texts of a block by the names of their tags; what is broken is left out."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return {}
    found: dict[str, str] = {}
    directories = [struct.unpack_from(f"{order}I", block, 4)[0]]
    for directory in directories:
        for tag, value in _entries(block, directory, order):
            if tag == _EXIF_DIRECTORY and isinstance(value, int) and len(directories) == 1:
                directories.append(value)
            elif tag in _NAMES and isinstance(value, bytes):
                name = _NAMES[tag]
                text = _comment(value, order) if name == USER_COMMENT else _text(value)
                if text:
                    found.setdefault(name, text)
    return found


def _entries(block: bytes, directory: int, order: str) -> Iterator[tuple[int, bytes | int]]:
    """Yield the tag and the value of each entry of a directory: bytes, or a number that may be an offset."""
    if directory + 2 > len(block):
        return
    (count,) = struct.unpack_from(f"{order}H", block, directory)
    for number in range(min(count, _MAX_ENTRIES)):
        position = directory + 2 + 12 * number
        if position + 12 > len(block):
            return
        tag, kind, size, value = struct.unpack_from(f"{order}HHII", block, position)
        if kind not in _BYTES:
            yield tag, value
        elif tag in _NAMES:
            start = position + 8 if size <= 4 else value
            yield tag, block[start : start + size]


def _comment(value: bytes, order: str) -> str:
    """A user comment, which begins with the name of its encoding."""
    code, content = value[:_CODE_BYTES].rstrip(b"\0 "), value[_CODE_BYTES:]
    if code == b"UNICODE":
        return content.decode(_utf16(content, order), errors="replace").strip("\0")
    return _text(content if code in (b"", b"ASCII") else value)


def _utf16(content: bytes, order: str) -> Literal["utf-16", "utf-16-be", "utf-16-le"]:
    """The byte order of UTF-16: its mark's; else that in which more of it is ASCII; else the block's.

    Programs differ: the standard does not say, and the web UI writes big-endian into little-endian blocks.
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    zeros_first, zeros_last = content[0::2].count(0), content[1::2].count(0)
    if zeros_first == zeros_last:
        return "utf-16-le" if order == "<" else "utf-16-be"
    return "utf-16-be" if zeros_first > zeros_last else "utf-16-le"


def _text(value: bytes) -> str:
    """ASCII by the standard, UTF-8 as it is written."""
    return value.decode(errors="replace").strip("\0")
