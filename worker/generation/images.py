"""Bytes ↔ pictures: inputs by their role, the repaired edge of an inpaint, files with the receipt inside.

Knows no pipeline. The same picture and receipt always give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageChops, ImageFilter
from PIL.PngImagePlugin import PngInfo

Size = tuple[int, int]
#: Left, upper, right, lower; the last two are outside.
Box = tuple[int, int, int, int]
Mask = npt.NDArray[np.uint8]


def read_image(data: bytes, size: Size) -> Image.Image:
    """A start or control image, RGB, scaled to `size`; what is transparent in it is white."""
    picture = _flatten(_open(data), "white").convert("RGB")
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def read_mask(data: bytes, size: Size) -> Image.Image:
    """A mask, one channel, white = repaint, scaled to `size`; what is transparent in it is black.

    Scaled bilinearly: Lanczos rings, and would touch pixels beside the mask.
    """
    mask = _flatten(_open(data), "black").convert("L")
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)


def _open(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def _flatten(picture: Image.Image, color: str) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, color), picture)


def frame_around(mask: Image.Image | None, padding: int | None) -> Box | None:
    """The part of the picture to paint alone, at full size: around the mask's white, in the picture's shape.

    Args:
        mask: the mask, as large as the output.
        padding: pixels of surroundings that the model should see; None: it sees everything.
    """
    box = None if mask is None else mask.getbbox()
    if mask is None or box is None or padding is None:
        return None
    left, upper, right, lower = box
    share = max((right - left + 2 * padding) / mask.width, (lower - upper + 2 * padding) / mask.height)
    width = min(mask.width, round(mask.width * share))
    height = min(mask.height, round(mask.height * share))
    x = min(max((left + right - width) // 2, 0), mask.width - width)
    y = min(max((upper + lower - height) // 2, 0), mask.height - height)
    return x, y, x + width, y + height


def enlarge(picture: Image.Image, frame: Box) -> Image.Image:
    """The framed part, as large as the whole."""
    resampling = Image.Resampling.BILINEAR if picture.mode == "L" else Image.Resampling.LANCZOS
    return picture.resize(picture.size, resampling, box=frame)


def put_back(painted: Image.Image, original: Image.Image, frame: Box) -> Image.Image:
    """The original with the framed part replaced by what was painted of it."""
    left, upper, right, lower = frame
    whole = original.copy()
    whole.paste(painted.resize((right - left, lower - upper), Image.Resampling.LANCZOS), (left, upper))
    return whole


def soften(mask: Image.Image, blur: int) -> Image.Image:
    """The mask with an edge that rises over `blur` pixels, inwards: what was black stays black.

    It is the mean of the mask and its erosions by one pixel each, as many as `blur` says and as leave something
    of the mask, smoothed. Beyond the picture's border counts as masked.
    """
    eroded = np.asarray(mask, dtype=np.uint8)
    total, count = eroded.astype(np.uint32), 1
    while count <= blur and (eroded := _erode(eroded)).any():
        total += eroded
        count += 1
    ramp = Image.fromarray((total // count).astype(np.uint8))
    # The steps of a round edge would show as hatching.
    smooth = ramp.filter(ImageFilter.GaussianBlur(min(blur, 6) / 3))
    return ImageChops.darker(mask, smooth)


def _erode(mask: Mask) -> Mask:
    rows = np.pad(mask, ((1, 1), (0, 0)), mode="edge")
    mask = np.minimum(np.minimum(rows[:-2], rows[1:-1]), rows[2:])
    columns = np.pad(mask, ((0, 0), (1, 1)), mode="edge")
    eroded: Mask = np.minimum(np.minimum(columns[:, :-2], columns[:, 1:-1]), columns[:, 2:])
    return eroded


def encode(picture: Image.Image, file_format: str, quality: int, texts: Mapping[str, str]) -> bytes:
    """The file, with `texts["darkroom"]` (JSON) and `texts["parameters"]` (A1111's line) inside.

    PNG has text chunks; JPEG and WebP have EXIF, as ImageDescription and UserComment. A JPEG has room for
    64 KiB of it: very long prompts cost it the second, then the first.
    """
    options: dict[str, object] = {}
    if file_format == "png":
        chunks = PngInfo()
        for name, text in texts.items():
            chunks.add_text(name, text)
        options = {"pnginfo": chunks}
    else:
        room = _JPEG_EXIF_BYTES if file_format == "jpeg" else None
        options = {"quality": quality, "exif": _exif(texts, room)}
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


#: A JPEG segment has 64 KiB, some of which are headers.
_JPEG_EXIF_BYTES = 65_000


def _exif(texts: Mapping[str, str], room_bytes: int | None) -> bytes:
    for names in (("darkroom", "parameters"), ("darkroom",), ()):
        exif = Image.Exif()
        if "darkroom" in names:
            exif[ExifTags.Base.ImageDescription] = texts["darkroom"]
        if "parameters" in names:
            comment = b"UNICODE\0" + texts["parameters"].encode("utf-16-be")
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
        data = exif.tobytes()
        if room_bytes is None or len(data) <= room_bytes:
            break
    return data
