"""Headers of GGUF files: names, kinds, shapes and byte offsets of their tensors.

The format of llama.cpp, in which denoisers are traded with their weights packed: blocks of 32 or 256 values that
share scales. Reads no weights and needs no package. Refuses files that are not complete, and says why. Numbers are
checked before anything is computed from them or kept for them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from contracts.weights.formats.header_text import UnreadableWeights
from contracts.weights.formats.safetensors import Readable

#: Number in the file -> kind, values of a block, bytes of a block
#: (https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py), and bytes alive for each value
#: while diffusers (0.42) unpacks a layer to 16 bits, as a test measures them. Other kinds it cannot unpack.
KINDS: Mapping[int, tuple[str, int, int, float]] = MappingProxyType(
    {
        0: ("F32", 1, 4, 0), 1: ("F16", 1, 2, 0), 30: ("BF16", 1, 2, 0),
        2: ("Q4_0", 32, 18, 4), 3: ("Q4_1", 32, 20, 5), 6: ("Q5_0", 32, 22, 10), 7: ("Q5_1", 32, 24, 10),
        8: ("Q8_0", 32, 34, 4), 10: ("Q2_K", 256, 84, 5.25), 11: ("Q3_K", 256, 110, 5.3125),
        12: ("Q4_K", 256, 144, 5.1875), 13: ("Q5_K", 256, 176, 7.1875), 14: ("Q6_K", 256, 210, 5.125),
        20: ("IQ4_NL", 32, 18, 12), 23: ("IQ4_XS", 256, 136, 12.21875),
    }
)  # fmt: skip
_UNPACKING = {kind: value_bytes for kind, _, _, value_bytes in KINDS.values()}
#: Kinds whose values are stored one by one.
_PLAIN = frozenset({"F32", "F16", "BF16"})
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
#: Headers of image models have less than 200 KB; those of language models hold vocabularies.
_MAX_HEADER_BYTES = 4 * 2**20
_READ_BYTES = 2**16
_MAX_TENSORS, _MAX_ENTRIES = 16_384, 1024
#: ggml allows 4 axes and names of 64 bytes; ComfyUI-GGUF writes up to 127.
_MAX_AXES, _MAX_NAME_BYTES = 4, 255
#: A side, and the number of values of a tensor, are less than this.
_MAX_VALUES = 2**40
_ALIGNMENT, _MAX_ALIGNMENT = 32, 2**16
_ALIGNMENT_KEY = "general.alignment"
#: Type of a metadata value -> its bytes; strings and arrays have types of their own.
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UINT32, _STRING, _ARRAY = 4, 8, 9


class NotGguf(UnreadableWeights):
    """A file that is not a complete GGUF file."""


@dataclass(frozen=True)
class PackedTensor:
    """One tensor of a file, from byte `begin` of the file up to, but without, byte `end`.

    Attributes:
        dtype: its kind, such as `Q8_0` or `F32`.
        shape: of its values, as torch has it.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def is_packed(self) -> bool:
        """Whether its values share scales, so that they must be unpacked before anything computes with them."""
        return self.dtype not in _PLAIN

    @property
    def values(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def unpacking_bytes(self) -> int:
        """Bytes that a layer takes for a moment to unpack it to 16 bits; 0 where it is not packed."""
        return int(self.values * _UNPACKING[self.dtype])

    @property
    def copy_bytes(self) -> int:
        """Bytes of each value in 16 bits, which a layer makes before those in the model's dtype."""
        return 2

    @property
    def copies_output(self) -> bool:
        """Whether its layer has its result in memory twice: no, its weight is unpacked whole."""
        return False

    @property
    def stored_bytes(self) -> int:
        """Bytes in the file, and on a device where they are packed."""
        return self.end - self.begin


def read_gguf(file: Path) -> Mapping[str, PackedTensor]:
    """Read the header of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

    Returns:
        Its tensors by name, in the order of the file.

    Raises:
        NotGguf: it is another kind of file or truncated; its header is inconsistent, has a kind of weights that
            diffusers cannot compute with, or is over a limit: 4 MiB, 16,384 tensors, 1024 entries of metadata,
            4 axes, 2^40 values in one tensor.
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        return read_gguf_of(stream, file.stat().st_size)


def read_gguf_of(stream: Readable, size: int) -> Mapping[str, PackedTensor]:
    """The same of a file of `size` bytes that is read from elsewhere, from its beginning.

    Raises:
        NotGguf: as `read_gguf`.
    """
    header = _Header(stream, size)
    if header.take(4) != _MAGIC:
        raise NotGguf("is not a GGUF file")
    version = header.number("<I")
    if version not in _VERSIONS:
        raise NotGguf(f"has version {version} of the format; 2 and 3 are supported, in little-endian order")
    tensors, entries = header.number("<Q"), header.number("<Q")
    if tensors > _MAX_TENSORS or entries > _MAX_ENTRIES:
        raise NotGguf(
            f"has {tensors} tensors and {entries} entries of metadata; at most {_MAX_TENSORS} and {_MAX_ENTRIES} "
            "are allowed"
        )
    alignment = _skip_metadata(header, entries)
    found = dict(_entry(header, alignment) for _ in range(tensors))
    if len(found) != tensors:
        raise NotGguf("is damaged: it has two tensors of one name")
    return _placed(found, -(-header.position // alignment) * alignment, alignment, size)


class _Header:
    """The header's bytes in order, never more of them than a header may have."""

    def __init__(self, stream: Readable, size: int) -> None:
        self._stream, self._limit = stream, min(size, _MAX_HEADER_BYTES)
        self._is_whole = size <= _MAX_HEADER_BYTES
        self._read = bytearray()
        self.position = 0

    def take(self, count: int) -> bytes:
        """Return the next bytes; raises NotGguf where the file, or what a header may have, ends before."""
        end = self.position + count
        if end > self._limit and not self._is_whole:
            raise NotGguf(f"has a header of more than {_MAX_HEADER_BYTES} bytes: it is not a denoiser")
        while len(self._read) < end <= self._limit:
            more = self._stream.read(max(end - len(self._read), _READ_BYTES))
            if not more:
                break
            self._read += more
        if len(self._read) < end:
            raise NotGguf("is truncated: its header is incomplete")
        taken = bytes(self._read[self.position : end])
        self.position = end
        return taken

    def number(self, form: str) -> int:
        """Return the next whole number, of a form as in `struct`."""
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def text(self, limit: int | None = None) -> bytes:
        """Return the next text; None: of any length that the header has room for."""
        length = self.number("<Q")
        if limit is not None and length > limit:
            raise NotGguf(f"is damaged: it has a name of {length} bytes; at most {limit} are allowed")
        return self.take(length)


def _skip_metadata(header: _Header, entries: int) -> int:
    """Pass over the metadata; returns what tensors are aligned to."""
    alignment = _ALIGNMENT
    for _ in range(entries):
        key, kind = header.text(), header.number("<I")
        if key == _ALIGNMENT_KEY.encode():
            if kind != _UINT32:
                raise NotGguf(f"is damaged: {_ALIGNMENT_KEY} must be a number of 32 bits")
            alignment = header.number("<I")
            if not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
                raise NotGguf(f"is damaged: {_ALIGNMENT_KEY} is {alignment}, not a power of two up to 65,536")
        elif kind == _ARRAY:
            _skip_array(header)
        else:
            _skip(header, kind, 1)
    return alignment


def _skip_array(header: _Header) -> None:
    kind, count = header.number("<I"), header.number("<Q")
    if kind == _ARRAY:
        raise NotGguf("is damaged: its metadata has arrays in arrays")
    _skip(header, kind, count)


def _skip(header: _Header, kind: int, count: int) -> None:
    """Pass over values of one type; a count is at most that of the bytes that the header may have."""
    if kind == _STRING:
        for _ in range(count):
            header.text()
    elif kind in _SCALAR_BYTES:
        header.take(count * _SCALAR_BYTES[kind])
    else:
        raise NotGguf(f"is damaged: its metadata has a value of the unknown type {kind}")


def _entry(header: _Header, alignment: int) -> tuple[str, PackedTensor]:
    """The entry of one tensor, whose offsets are still those in the data."""
    try:
        name = header.text(_MAX_NAME_BYTES).decode()
    except UnicodeDecodeError:
        raise NotGguf("is damaged: the name of a tensor is not UTF-8") from None
    short, axes = name[:80], header.number("<I")
    if not 1 <= axes <= _MAX_AXES:
        raise NotGguf(f"is damaged: {short} has {axes} axes; 1 to {_MAX_AXES} are allowed")
    sides = [header.number("<Q") for _ in range(axes)]
    number, offset = header.number("<I"), header.number("<Q")
    if number not in KINDS:
        known = ", ".join(kind for kind, *_ in KINDS.values())
        raise NotGguf(f"has weights of a kind that diffusers cannot compute with (number {number}, {short}); it "
                      f"can with {known}")  # fmt: skip
    kind, block_values, block_bytes, _ = KINDS[number]
    values = 1
    for side in sides:
        values *= side if 0 < side < _MAX_VALUES else _MAX_VALUES
        if values >= _MAX_VALUES:
            raise NotGguf(f"is damaged: {short} has an empty side, or 2^40 values or more")
    if sides[0] % block_values:
        raise NotGguf(f"is damaged: rows of {short} have {sides[0]} values, not a multiple of the "
                      f"{block_values} of a {kind} block")  # fmt: skip
    if offset % alignment:
        raise NotGguf(f"is damaged: {short} begins at byte {offset}, not at a multiple of {alignment}")
    # The file has the fastest side first.
    return name, PackedTensor(kind, tuple(reversed(sides)), offset, offset + values // block_values * block_bytes)


def _placed(
    tensors: Mapping[str, PackedTensor], data_begin: int, alignment: int, size: int
) -> dict[str, PackedTensor]:
    """The tensors with their offsets in the file, which they must fill but for what aligns them."""
    expected = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].begin):
        if tensor.begin != expected:
            raise NotGguf(f"is damaged: {name[:80]} overlaps another tensor, or leaves a gap before it")
        expected = -(-tensor.end // alignment) * alignment
    end = data_begin + max((tensor.end for tensor in tensors.values()), default=0)
    if end > size:
        raise NotGguf(f"is truncated: {end - size} bytes are missing")
    if size > max(data_begin + expected, end):
        raise NotGguf(f"contains {size - data_begin - expected} bytes that belong to no tensor")
    return {
        name: PackedTensor(one.dtype, one.shape, data_begin + one.begin, data_begin + one.end)
        for name, one in tensors.items()
    }
