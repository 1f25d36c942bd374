"""Reads `metadata.jsonl` of a zip file of images: a line an image, with its caption and its control image.

The columns are those of Hugging Face's `datasets` (ImageFolder) and of diffusers' ControlNet training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

NAME = "metadata.jsonl"
#: Room for a thousand lines with long captions.
MAX_METADATA_BYTES = 4 * 2**20
_COLUMNS = "file_name or image, conditioning_image, and text"


class MetadataProblem(Exception):
    """A line that cannot be read; the message completes a sentence about the zip file."""


@dataclass(frozen=True)
class Listed:
    """An image of a zip file, what it is called, and the paths of both in the file.

    Attributes:
        caption: None without one.
        control: path of its control image; None without one.
    """

    name: str
    caption: str | None = None
    control: str | None = None


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    file_name: str | None = Field(None, min_length=1, max_length=1000)
    image: str | None = Field(None, min_length=1, max_length=1000)
    conditioning_image: str | None = Field(None, min_length=1, max_length=1000)
    text: str | None = Field(None, min_length=1, max_length=4000)


def read_metadata(data: bytes, folder: PurePosixPath, max_images: int) -> list[Listed]:
    """Read all lines; empty ones are skipped.

    Args:
        folder: that the file is in, which paths are relative to.

    Raises:
        MetadataProblem: a line is not an object of these columns, or names the same image as another; or more than
            `max_images` are named, of which no more are read.
    """
    found: dict[str, Listed] = {}
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if not line.strip():
            continue
        listed = _read(number, line, folder)
        if listed.name in found:
            raise MetadataProblem(f"names the image {listed.name!r:.100} in two lines of {NAME}")
        found[listed.name] = listed
        if len(found) > max_images:
            raise MetadataProblem(f"names more than {max_images} images in {NAME}; send the most useful ones")
    return list(found.values())


def _read(number: int, line: bytes, folder: PurePosixPath) -> Listed:
    where = f"line {number} of {NAME}"
    try:
        row = _Line.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        column = ".".join(map(str, first["loc"]))[:60]
        if first["type"] == "extra_forbidden":
            raise MetadataProblem(f"has the column {column!r} in {where}; a line may have {_COLUMNS}") from None
        raise MetadataProblem(f"has an unusable {where} ({column or 'not an object'}): {first['msg']}") from None
    names = [name for name in (row.file_name, row.image) if name is not None]
    if len(names) != 1:
        raise MetadataProblem(f"must name one image in file_name or image in {where}")
    control = None if row.conditioning_image is None else str(folder / row.conditioning_image)
    return Listed(str(folder / names[0]), row.text, control)
