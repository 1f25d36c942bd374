"""Headers of safetensors files: names, dtypes, shapes and byte offsets of their tensors.

Reads no weights. Refuses files that are not complete safetensors files, and says why.
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
#: The safetensors library reads no longer header; real ones have a few hundred kilobytes.
_MAX_HEADER_BYTES = 100 * 2**20
#: First bytes of files that contain a Python pickle: a zip (torch.save), or a bare pickle of protocol 2 to 5.
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class NotSafetensors(DarkroomError):
    """A file that is not a complete safetensors file; the message continues a sentence that names the file."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file, from byte `begin` of the file up to, but without, byte `end`."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file by name.

    Raises:
        NotSafetensors: it is another kind of file, truncated, or its header is inconsistent.
        OSError: the file cannot be read.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(9)
        length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
        if not 2 <= length <= _MAX_HEADER_BYTES or not start.endswith(b"{"):
            if start.startswith(_PICKLES):
                raise NotSafetensors("is a pickle, which can execute code; convert it to .safetensors")
            raise NotSafetensors("is not a safetensors file")
        if 8 + length > size:
            raise NotSafetensors("is truncated: its header is incomplete")
        text = b"{" + stream.read(length - 1)
    tensors = _read_entries(text, 8 + length)
    _check_offsets(tensors, 8 + length, size)
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
        raise NotSafetensors("is not a safetensors file") from None
    for name, tensor in tensors.items():
        value_bytes = VALUE_BYTES.get(tensor.dtype)
        if value_bytes is None:
            raise NotSafetensors(f"contains the unsupported dtype {tensor.dtype[:20]!r}")
        if min(tensor.shape, default=0) < 0 or tensor.end - tensor.begin != math.prod(tensor.shape) * value_bytes:
            raise NotSafetensors(f"is damaged: the length of {name[:80]} does not match its shape")
    return tensors


def _check_offsets(tensors: Mapping[str, Tensor], data_begin: int, size: int) -> None:
    """Refuse gaps and overlaps: tensors must fill the file, so that it contains nothing else."""
    offset = data_begin
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != offset:
            raise NotSafetensors("is damaged: its tensors overlap or leave gaps")
        offset = tensor.end
    if offset > size:
        raise NotSafetensors(f"is truncated: {offset - size} bytes are missing")
    if offset < size:
        raise NotSafetensors(f"contains {size - offset} bytes that belong to no tensor")
