"""Finds the blocks of EXIF and XMP in JPEG and WebP files. Reads nothing of what is in them.

Sources: JPEG, ITU-T T.81 annex B; EXIF 2.32, 4.5.4; XMP part 3, 1.1.3; WebP, RFC 9649, 2.7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

EXIF, XMP = "exif", "xmp"
_JPEG = b"\xff\xd8"
_EXIF_HEADER, _XMP_HEADER = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
#: Markers of JPEG: the image's own data begins, the file ends, application data.
_START_OF_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
#: Markers without a length: restarts, and one for temporary use.
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
#: Parts of a file that are walked, and the most bytes of a block.
_MAX_PARTS, _MAX_BLOCK_BYTES = 2000, 256 * 1024
_WEBP_KINDS = {b"EXIF": EXIF, b"XMP ": XMP}


def is_jpeg(data: bytes) -> bool:
    """Whether bytes begin as a JPEG file does."""
    return data.startswith(_JPEG + b"\xff")


def is_webp(data: bytes) -> bool:
    """Whether bytes begin as a WebP file does."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def jpeg_blocks(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the kind and the content of each block before the image's own data."""
    position = len(_JPEG)
    for _ in range(_MAX_PARTS):
        if position + 4 > len(data) or data[position] != 0xFF:
            return
        marker = data[position + 1]
        if marker == 0xFF or marker in _BARE:  # padding
            position += 1 if marker == 0xFF else 2
            continue
        if marker in (_START_OF_SCAN, _END):
            return
        (size,) = struct.unpack_from(">H", data, position + 2)
        if marker == _APP1:
            content = data[position + 4 : position + 2 + size]
            for kind, header in ((EXIF, _EXIF_HEADER), (XMP, _XMP_HEADER)):
                if content.startswith(header):
                    yield kind, content[len(header) :]
        position += 2 + max(size, 2)


def webp_blocks(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the kind and the content of each block."""
    position = 12
    for _ in range(_MAX_PARTS):
        if position + 8 > len(data):
            return
        name, size = struct.unpack_from("<4sI", data, position)
        if name in _WEBP_KINDS:
            content = data[position + 8 : position + 8 + min(size, _MAX_BLOCK_BYTES)]
            yield _WEBP_KINDS[name], content.removeprefix(_EXIF_HEADER)
        position += 8 + size + size % 2
