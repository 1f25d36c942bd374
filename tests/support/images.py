"""Small images and masks, and the forms in which clients send them."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

from PIL import Image, ImageDraw, ImageOps

SIDE = 64
#: The transparent part of `mask_with_hole`: left, upper, right, lower, all inside.
HOLE = (16, 16, 47, 47)


def encode_image(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The image as a file's bytes; options are Pillow's for the format."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def encode_solid(mode: str, size: tuple[int, int], colour: Any, format: str = "PNG", **options: Any) -> bytes:
    """An image of one colour as a file's bytes."""
    return encode_image(Image.new(mode, size, colour), format, **options)


def open_png(data: bytes) -> Image.Image:
    """The image in a PNG file, decoded."""
    image = Image.open(io.BytesIO(data), formats=("PNG",))
    image.load()
    return image


def open_stored(data: bytes) -> Image.Image:
    """The image in a stored input, decoded and upright, in its own mode."""
    image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
    ImageOps.exif_transpose(image, in_place=True)
    return image


def data_url(data: bytes) -> str:
    """A PNG file as a `data:` URL."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def to_base64(image: Image.Image, format: str = "png") -> str:
    """The image as bare base64."""
    return base64.b64encode(encode_image(image, format)).decode()


def to_data_url(image: Image.Image, format: str = "png") -> str:
    """The image as a `data:` URL."""
    return f"data:image/{format};base64,{to_base64(image, format)}"


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1024)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def solid_image(colour: str) -> Image.Image:
    """An RGB image of one colour."""
    return Image.new("RGB", (SIDE, SIDE), colour)


def draw_shape(
    shape: str = "circle", colour: str = "red", background: str = "blue", side: int = SIDE
) -> Image.Image:
    """A circle or a square in the middle of a plain background."""
    image = Image.new("RGB", (side, side), background)
    box, draw = (side // 4, side // 4, side * 3 // 4, side * 3 // 4), ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    else:
        draw.rectangle(box, fill=colour)
    return image


def framed_mask() -> Image.Image:
    """A mask that is white inside a black frame of eight pixels."""
    mask = Image.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (8, 8, 56, 56))
    return mask


def left_half_mask(side: int = SIDE) -> Image.Image:
    """A mask that is white on the left half."""
    mask = Image.new("L", (side, side), 0)
    mask.paste(255, (0, 0, side // 2, side))
    return mask


def mask_with_hole() -> Image.Image:
    """An OpenAI mask: opaque black around a transparent square."""
    mask = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 255))
    ImageDraw.Draw(mask).rectangle(HOLE, fill=(0, 0, 0, 0))
    return mask
