"""Content codings of bodies: gzip, unpacked piece by piece, so that a bomb costs no memory. Reads no body."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from starlette.datastructures import Headers

from app.errors import UnknownCoding
from contracts.errors import UnreadableBody

_GZIP_NAMES = frozenset({"gzip", "x-gzip"})
_PIECE_BYTES = 64 * 2**10
#: zlib's number for "gzip, with its header and checksum".
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
#: A gzip file may have several members (RFC 1952). Empty ones would take long to unpack, and be no bytes.
_MAX_MEMBERS = 1000


def open_coding(headers: Headers) -> Gunzip | None:
    """What unpacks the body with these headers; None for a body that is sent as it is.

    Raises:
        UnknownCoding: the body has another coding than gzip, or several.
    """
    text = ",".join(headers.getlist("content-encoding"))
    codings = [coding.strip().lower() for coding in text.split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in _GZIP_NAMES:
        message = f"the body's Content-Encoding is {text[:40]!r}; send it with gzip, or without Content-Encoding"
        raise UnknownCoding(message)
    return Gunzip()


class Gunzip:
    """Decompressor of one body."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self._members = 1
        self._is_empty = True

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the unpacked bytes of the next chunk, in pieces of at most 64 KiB.

        Raises:
            UnreadableBody: the body is not gzip, or is damaged.
        """
        rest, piece = chunk, b""
        # What fits into no piece may remain inside the decompressor once all of the chunk is consumed.
        while rest or (len(piece) == _PIECE_BYTES and not self._member.eof):
            if self._member.eof:
                self._begin_member()
            self._is_empty = False
            try:
                piece = self._member.decompress(rest, _PIECE_BYTES)
            except zlib.error as error:
                raise UnreadableBody(f"the body is not the gzip that its header names: {error}") from None
            rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if piece:
                yield piece

    def end(self) -> None:
        """Check that the body was whole.

        Raises:
            UnreadableBody: it was cut off.
        """
        if not self._is_empty and not self._member.eof:
            raise UnreadableBody("the gzip body ends too early: it was cut off")

    def _begin_member(self) -> None:
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise UnreadableBody(f"the gzip body has more than {_MAX_MEMBERS} members; compress it as a whole")
        self._member = zlib.decompressobj(_GZIP_WINDOW)
