"""A decoded image as it crosses the decoder's pipe, declared once for both ends. Knows no Pillow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class DecodedImage:
    """An image that was decoded in full, in its stored form.

    Attributes:
        width, height: in pixels, upright.
        format: of the bytes received: `png`, `jpeg`, `webp`, `gif`, `bmp`, `tiff`, `avif` or `heif`.
        stored_format: of `data`: `png`, `jpeg` or `webp`.
        data: the file that is stored, in sRGB and without metadata but its orientation.
        color_profile: what was done about the file's color profile, in words; None where nothing need be done.
        mask_source: of a mask: what was read as the mask, in words; None where it is the brightness.
        white: of a mask, or of `hole`: the box around its white, in pixels.
        hole: of an image whose transparent part is to be regenerated: the mask of that part, a PNG file.
    """

    width: int
    height: int
    format: str
    stored_format: str
    data: bytes
    color_profile: str | None = None
    mask_source: str | None = None
    white: tuple[int, int, int, int] | None = None
    hole: bytes = b""

    def to_reply(self) -> tuple[dict[str, Any], bytes]:
        """Return the fields as JSON types, and the bytes behind them: the file, then the hole's."""
        fields = asdict(self)
        data, hole = fields.pop("data"), fields.pop("hole")
        return {**fields, "hole_size": len(hole)}, data + hole

    @classmethod
    def from_reply(cls, fields: Mapping[str, Any], content: bytes) -> DecodedImage:
        """Read what `to_reply` returned; `fields` may have others beside."""
        own = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        end = len(content) - fields["hole_size"]
        white = None if own["white"] is None else tuple(own["white"])
        return cls(**{**own, "white": white, "data": content[:end], "hole": content[end:]})
