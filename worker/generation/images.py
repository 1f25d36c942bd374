"""Decodes input images and encodes output files with their metadata.

Knows no pipeline. The same image and metadata always give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

#: Width, height in pixels.
Size = tuple[int, int]
#: A JPEG segment has 64 KiB, including its headers.
_JPEG_EXIF_BYTES = 65_000


def read_image(data: bytes, size: Size) -> Image.Image:
    """Decode an input or control image: RGB, scaled to `size`; transparent pixels become white."""
    image = _flatten(_open(data), "white").convert("RGB")
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def read_mask(data: bytes, size: Size) -> Image.Image:
    """Decode a mask: one channel, white = generate, scaled to `size`; transparent pixels become black.

    Scaled bilinearly: Lanczos overshoots at edges and would touch pixels beside the mask.
    """
    mask = _flatten(_open(data), "black").convert("L")
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def _flatten(image: Image.Image, color: str) -> Image.Image:
    """Return the image on an opaque background."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, color), image)


def encode(image: Image.Image, file_format: str, quality: int, metadata: Mapping[str, str]) -> bytes:
    """Return the file with `metadata["darkroom"]` (JSON) and `metadata["parameters"]` (A1111's line) inside.

    PNG has them as text chunks; JPEG and WebP as EXIF ImageDescription and UserComment. A JPEG has room for
    64 KiB of EXIF: with very long prompts it lacks the second, then both.
    """
    options: dict[str, object] = {}
    if file_format == "png":
        chunks = PngInfo()
        for name, text in metadata.items():
            chunks.add_text(name, text)
        options = {"pnginfo": chunks}
    else:
        max_bytes = _JPEG_EXIF_BYTES if file_format == "jpeg" else None
        options = {"quality": quality, "exif": _exif(metadata, max_bytes)}
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def _exif(metadata: Mapping[str, str], max_bytes: int | None) -> bytes:
    """Return EXIF with as much of the metadata as fits."""
    for names in (("darkroom", "parameters"), ("darkroom",), ()):
        exif = Image.Exif()
        if "darkroom" in names:
            exif[ExifTags.Base.ImageDescription] = metadata["darkroom"]
        if "parameters" in names:
            comment = b"UNICODE\0" + metadata["parameters"].encode("utf-16-be")
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
        data = exif.tobytes()
        if max_bytes is None or len(data) <= max_bytes:
            break
    return data
