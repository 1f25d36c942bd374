"""Headers of safetensors files: names, dtypes, shapes and byte offsets of their tensors.

Reads no weights. Refuses files that are not complete safetensors files, and says why. Files come from clients:
types and bounds are checked before anything is computed from a number.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from contracts.weights.formats.header_text import NotSafetensors, read_text

#: Bytes of one value.
VALUE_BYTES: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
#: Real headers have a few hundred kilobytes, of which trainers' statistics are the most.
_MAX_HEADER_BYTES = 4 * 2**20
_MAX_AXES = 8
#: A side, and the number of values of a tensor, are less than this.
_MAX_VALUES = 2**40
#: Offsets are less than this, so that sums of them fit into 64 bits.
_MAX_OFFSET = 2**62
_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
#: First bytes of files that contain a Python pickle: a zip (torch.save), or a bare pickle of protocol 2 to 5.
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class Readable(Protocol):
    """Bytes that are read in order."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes; fewer than `size` only at the end."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file, from byte `begin` of the file up to, but without, byte `end`."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def values(self) -> int:
        """Number of values."""
        return (self.end - self.begin) // VALUE_BYTES[self.dtype]


@dataclass(frozen=True)
class Header:
    """Content of a file's header.

    Attributes:
        tensors: by name, in the order of the header.
        metadata: texts that the program that wrote the file added.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_header(file: Path) -> Header:
    """Read the header of a safetensors file (https://github.com/huggingface/safetensors#format).

    Raises:
        NotSafetensors: it is another kind of file, truncated, or its header is inconsistent or over a limit: 4
            MiB, 16,384 tensors, 8 axes, 2^40 values in one tensor.
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        return read_header_of(stream, file.stat().st_size)


def read_header_of(stream: Readable, size: int) -> Header:
    """The same of a file of `size` bytes that is read from elsewhere, from its beginning.

    Raises:
        NotSafetensors: as `read_header`.
    """
    text = _read_text(stream, size)
    data_begin = 8 + len(text)
    entries, metadata = read_text(text)
    tensors = {name: _tensor(name, entry, data_begin) for name, entry in entries.items()}
    _check_offsets(tensors, data_begin, size)
    return Header(tensors, metadata)


def _read_text(stream: Readable, size: int) -> bytes:
    start = stream.read(9)
    length: int = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
    if length < 2 or not start.endswith(b"{"):
        if start.startswith(_PICKLES):
            raise NotSafetensors("is a pickle, which can execute code; convert it to .safetensors")
        raise NotSafetensors("is not a safetensors file")
    if length > _MAX_HEADER_BYTES:
        raise NotSafetensors(f"has a header of {length} bytes; at most {_MAX_HEADER_BYTES} are allowed")
    if 8 + length > size:
        raise NotSafetensors("is truncated: its header is incomplete")
    return b"{" + stream.read(length - 1)


def _tensor(name: str, entry: Mapping[str, object], data_begin: int) -> Tensor:
    """Check the entry of one tensor, each number by itself first."""
    short = name[:80]
    if entry.keys() != _FIELDS:
        raise NotSafetensors(f"is damaged: {short} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in VALUE_BYTES:
        raise NotSafetensors(f"contains the unsupported dtype {str(dtype)[:20]!r}")
    if not isinstance(shape, list) or len(shape) > _MAX_AXES or not all(_is_below(n, _MAX_VALUES) for n in shape):
        raise NotSafetensors(
            f"is damaged: the shape of {short} must be at most {_MAX_AXES} whole numbers from 0 to 2^40"
        )
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_below(n, _MAX_OFFSET) for n in offsets):
        raise NotSafetensors(f"is damaged: the offsets of {short} must be two whole numbers of bytes")
    if offsets[1] - offsets[0] != _count(short, shape) * VALUE_BYTES[dtype]:
        raise NotSafetensors(f"is damaged: the length of {short} does not match its shape")
    return Tensor(dtype, tuple(shape), data_begin + offsets[0], data_begin + offsets[1])


def _is_below(number: object, limit: int) -> bool:
    """Whether it is a whole number from 0 up to, but without, the limit; JSON's `true` is none."""
    return type(number) is int and 0 <= number < limit


def _count(name: str, shape: list[int]) -> int:
    """Number of values. Libraries multiply the sides in 64 bits, those of an empty tensor too."""
    count = 1
    for side in shape:
        count *= max(side, 1)
        if count >= _MAX_VALUES:
            raise NotSafetensors(f"is damaged: {name} has 2^40 values or more")
    return 0 if 0 in shape else count


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
