"""The hash of the image data of a JPEG or WebP file: everything but metadata, which may be added or removed.

Their decoders may differ in the last bit, so the hash is of the coded image. Decodes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

#: Markers of JPEG without a length: RST0-7, SOI, EOI, TEM. ITU-T T.81, B.1.1.3.
_BARE = frozenset({0x01, *range(0xD0, 0xDA)})
_START_OF_SCAN, _COMMENT = 0xDA, 0xFE
#: Chunks of WebP that have pixels. RFC 9649, 2.6 and 2.7.
_PIXEL_CHUNKS = frozenset({b"VP8 ", b"VP8L", b"ALPH", b"ANMF"})


def hash_image_data(file: bytes) -> str:
    """Return the SHA-256 of a JPEG or WebP file without its metadata, in hexadecimal; of a damaged one, too."""
    parts = _jpeg_parts(file) if file.startswith(b"\xff\xd8") else _webp_parts(file)
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def _jpeg_parts(file: bytes) -> Iterator[bytes]:
    """Yield the segments that are neither APPn nor comments; from the first scan on, the rest of the file."""
    at = 2
    while at + 4 <= len(file) and file[at] == 0xFF:
        marker = file[at + 1]
        if marker == _START_OF_SCAN:
            break
        size = 2 if marker in _BARE else 2 + int.from_bytes(file[at + 2 : at + 4])
        if not 0xE0 <= marker <= 0xEF and marker != _COMMENT:
            yield file[at : at + size]
        at += size
    yield file[at:]


def _webp_parts(file: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(file):
        size = int.from_bytes(file[at + 4 : at + 8], "little")
        if file[at : at + 4] in _PIXEL_CHUNKS:
            yield file[at : at + 8 + size]
        at += 8 + size + size % 2
