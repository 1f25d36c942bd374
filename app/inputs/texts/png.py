"""Reads the texts inside a PNG file.

Only chunks are walked, nothing is decoded; compressed texts are unpacked up to a limit. Source: PNG, third
edition, sections 5.3 and 11.3.3 (https://www.w3.org/TR/png-3/).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Bytes of a chunk in addition to its data: length, kind and checksum.
_AROUND = 12
#: Limits on a file: texts, and the bytes of each once it is unpacked.
_MAX_TEXTS, _MAX_TEXT_BYTES = 64, 256 * 1024
_MAX_CHUNKS = 20_000
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


def is_png(data: bytes) -> bool:
    """Whether bytes begin as a PNG file does."""
    return data.startswith(_SIGNATURE)


def read_texts(png: bytes) -> Mapping[str, str]:
    """Return the texts of a PNG file by their keywords, of each the first. What is broken is left out.

    Broken and repeated texts count against the limit, too: each may have to be unpacked.
    """
    found: dict[str, str] = {}
    for kind, data in islice(_chunks(png, _TEXTS), _MAX_TEXTS):
        text = _text_of(kind, data)
        if text is not None:
            found.setdefault(*text)
    return found


def exif_blocks(png: bytes) -> Iterator[bytes]:
    """Yield the block of EXIF of a PNG file, if it has one."""
    for _, data in islice(_chunks(png, (b"eXIf",)), 1):
        yield data


def _chunks(png: bytes, kinds: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the data of each chunk of these kinds."""
    position = len(_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if position + _AROUND > len(png):
            return
        size, kind = struct.unpack_from(">I4s", png, position)
        if kind in kinds:
            yield kind, png[position + 8 : position + 8 + min(size, _MAX_TEXT_BYTES)]
        position += _AROUND + size


def _text_of(kind: bytes, data: bytes) -> tuple[str, str] | None:
    """The keyword and the text of a chunk; None where it has none that can be read."""
    name, _, rest = data.partition(b"\0")
    keyword = name[:79].decode("latin-1")
    if not keyword:
        return None
    if kind == b"tEXt":
        return keyword, rest.decode("latin-1")
    if kind == b"zTXt":
        unpacked = _unpack(rest[1:])
        return None if unpacked is None else (keyword, unpacked.decode("latin-1"))
    parts = rest[2:].split(b"\0", 2)  # behind two flags: language, translated keyword, text
    if len(parts) < 3:
        return None
    content = _unpack(parts[2]) if rest[:1] == b"\x01" else parts[2]
    return None if content is None else (keyword, content.decode("utf-8", errors="replace"))


def _unpack(data: bytes) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(data, _MAX_TEXT_BYTES)
    except zlib.error:
        return None
