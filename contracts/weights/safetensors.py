"""Headers of safetensors files: which tensors there are, of which dtype and shape, and where they lie.

Reads the header alone, and refuses what is no whole safetensors file by saying what it is instead.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import DarkroomError

#: Bytes of one value.
VALUE_BYTES: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
#: A header is JSON of a few hundred kilobytes at the most; a longer one is no safetensors file.
_MAX_HEADER_BYTES = 100 * 2**20
#: How files begin that Python's pickle is in: a zip (torch.save), or a bare pickle of protocol 2 to 5.
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class NotSafetensors(DarkroomError):
    """A file that is no safetensors file, or not a whole one; the message goes on after its name."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file; it lies from byte `begin` of the file up to `end`."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file by name.

    Raises:
        NotSafetensors: it is none, it is cut off, or its tensors do not lie where it says.
        OSError: the file cannot be read.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(9)
        length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
        if not 2 <= length <= _MAX_HEADER_BYTES or not start.endswith(b"{"):
            if start.startswith(_PICKLES):
                raise NotSafetensors("is a pickle, which could run code; convert it to .safetensors")
            raise NotSafetensors("is no safetensors file")
        if 8 + length > size:
            raise NotSafetensors("is cut off: not even its header is whole")
        text = b"{" + stream.read(length - 1)
    tensors = _read_entries(text, 8 + length)
    _check_places(tensors, 8 + length, size)
    return tensors


def _read_entries(text: bytes, data_begin: int) -> dict[str, Tensor]:
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        tensors = {
            name: Tensor(
                str(entry["dtype"]),
                tuple(int(side) for side in entry["shape"]),
                *(data_begin + int(offset) for offset in entry["data_offsets"]),
            )
            for name, entry in entries.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NotSafetensors("is no safetensors file") from None
    for name, tensor in tensors.items():
        value_bytes = VALUE_BYTES.get(tensor.dtype)
        if value_bytes is None:
            raise NotSafetensors(f"has values of the kind {tensor.dtype[:20]!r}, which is not supported")
        if min(tensor.shape, default=0) < 0 or tensor.end - tensor.begin != math.prod(tensor.shape) * value_bytes:
            raise NotSafetensors(f"is damaged: {name[:80]} has not the length of its shape")
    return tensors


def _check_places(tensors: Mapping[str, Tensor], data_begin: int, size: int) -> None:
    """Tensors fill the file without a gap, so nothing else can be in it."""
    place = data_begin
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != place:
            raise NotSafetensors("is damaged: its tensors do not lie end to end")
        place = tensor.end
    if place > size:
        raise NotSafetensors(f"is cut off: {place - size} bytes are missing")
    if place < size:
        raise NotSafetensors(f"holds {size - place} bytes that are no tensors")
