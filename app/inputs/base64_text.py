"""The text of an image field: base64, a data: URL, or what was sent in place of an image, such as a path.

Knows neither the image's format nor what else a text may name.
"""

from __future__ import annotations

import binascii
import re

from app.inputs.decoder import ImageDecoder
from contracts.errors import FieldProblem, InvalidRequest

#: What an image field may be.
FORMS = ["upload:ID", "job:ID/N", "data:image/…;base64,…", "base64"]
#: The remedy for what is not an image.
SEND = "send the image itself, in base64 or as an upload"
#: What base64 may be wrapped and indented with.
_WHITESPACE = b" \t\n\r\v\f"
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
#: What only paths start with. Of base64, only a JPEG starts with a slash: /9j/.
_PATH = re.compile(r"file:|blob:|~|\.{1,2}[/\\]|[a-z]:[/\\]|\\\\|@|/(?!9j)", re.IGNORECASE)
_FILE_NAME = re.compile(r".*\.(png|jpe?g|jfif|webp|gif|bmp|tiff?|avif|hei[cf]|svg)", re.IGNORECASE | re.DOTALL)
_MAX_PATH = 4096
#: Letters decoded at a time. Each call keeps the interpreter's lock, here for milliseconds; with a text of
#: 60 MiB in one call, all other requests would wait half a second.
_PIECE = 2**20
#: The letters of RFC 4648's alphabet for URLs that differ from those of its standard one.
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def decode_data_url(field: str, text: str, decoder: ImageDecoder) -> bytes:
    """The bytes of a `data:` URL (RFC 2397); raises as `decode_base64`."""
    head, comma, content = text.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise refused(field, "a data: URL must be in base64: data:image/png;base64,…")
    return decode_base64(field, content, decoder)


def decode_base64(field: str, text: str, decoder: ImageDecoder) -> bytes:
    """The bytes of a text in either alphabet of RFC 4648, with or without padding and line breaks.

    Raises:
        InvalidRequest: it is not base64, or empty.
        ImageTooLarge: it has more bytes than the decoder takes.
    """
    data, rest, ended = bytearray(), b"", False
    for start in range(0, len(text), _PIECE):
        # Not by `split`: a text of spaces and single letters would become millions of strings.
        packed = rest + _ascii(field, text[start : start + _PIECE]).translate(_URL_SAFE, _WHITESPACE)
        if packed and ended:
            raise refused(field, "is not valid base64: more characters follow the padding")
        length, ended = len(packed) // 4 * 4, b"=" in packed
        data += _decode(field, packed[:length])
        rest = packed[length:]
        if len(data) > decoder.max_bytes:
            raise decoder.too_many_bytes(field)
    if len(rest) % 4 == 1:
        raise refused(field, "is not valid base64: its length is not possible, so it may be cut off")
    if rest:  # RFC 4648 lets a sender leave the padding out
        data += _decode(field, rest + b"=" * (-len(rest) % 4))
    if not data:
        raise refused(field, f"is empty; {SEND}")
    return bytes(data)


def _ascii(field: str, text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError:
        raise refused(field, "is not valid base64: it has characters outside ASCII") from None


def _decode(field: str, packed: bytes) -> bytes:
    try:
        return binascii.a2b_base64(packed, strict_mode=True)
    except ValueError as error:
        raise refused(field, f"is not valid base64: {error}") from None


def is_path(text: str) -> bool:
    """Whether a text is the name of a file somewhere, rather than the image in it."""
    text = text.strip()
    if len(text) > _MAX_PATH or is_remote(text):
        return False
    return _PATH.match(text) is not None or _FILE_NAME.fullmatch(text) is not None


def is_remote(text: str) -> bool:
    """Whether a text is a URL that does not refer to the client's own machine, whatever its scheme."""
    text = text.strip()
    return _URL.match(text) is not None and not text.lower().startswith(("file:", "blob:"))


def refused(field: str, message: str) -> InvalidRequest:
    """The error of a text that is not an image, with what an image field may be."""
    return InvalidRequest([FieldProblem(field, message, FORMS)])
