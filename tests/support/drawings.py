"""Small pictures in every form, for tests that need bytes and do not care what they show."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

from PIL import Image


def save(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """An image as a file's bytes."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def encode(mode: str, size: tuple[int, int], colour: Any, format: str = "PNG", **options: Any) -> bytes:
    """A picture of one colour as a file's bytes."""
    return save(Image.new(mode, size, colour), format, **options)


def open_png(data: bytes) -> Image.Image:
    """The image in a PNG file, read."""
    image = Image.open(io.BytesIO(data), formats=("PNG",))
    image.load()
    return image


def data_url(data: bytes) -> str:
    """A file as a `data:` URL."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def png_header(width: int, height: int) -> bytes:
    """A valid PNG that claims a size and has next to no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1024)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
