"""Reads the texts inside an image file. Knows no program that writes them.

All of it is bounded: the number of parts that are walked, of texts, and the length of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.inputs.texts import exif, png, xmp
from app.inputs.texts.containers import EXIF, is_jpeg, is_webp, jpeg_blocks, webp_blocks
from contracts.errors import NotAnImage

#: Where a PNG file has XMP: the keyword of a text.
_XMP_KEYWORD = "XML:com.adobe.xmp"
_FORMATS = ("png", "jpeg", "webp")


def read_texts(data: bytes, field: str) -> Mapping[str, str]:
    """Return the texts of a PNG, JPEG or WebP file by their names: keywords of PNG, tags of EXIF.

    XMP has one text that is read, its user comment: `exif:UserComment`. Of each name the first is taken, and what
    is broken is left out.

    Raises:
        NotAnImage: it is another kind of file; the error names `field`.
    """
    found: dict[str, str] = {}
    if png.is_png(data):
        found.update(png.read_texts(data))
        blocks: Iterator[tuple[str, bytes]] = ((EXIF, block) for block in png.exif_blocks(data))
    elif is_jpeg(data):
        blocks = jpeg_blocks(data)
    elif is_webp(data):
        blocks = webp_blocks(data)
    else:
        message = "is not a PNG, JPEG or WebP file, and texts are read from these only"
        raise NotAnImage(field, message, _FORMATS)
    for kind, block in blocks:
        texts = exif.read_texts(block) if kind == EXIF else xmp.read_texts(block.decode(errors="replace"))
        for name, text in texts.items():
            found.setdefault(name, text)
    if _XMP_KEYWORD in found:
        for name, text in xmp.read_texts(found[_XMP_KEYWORD]).items():
            found.setdefault(name, text)
    return found
