"""Checks a safetensors file for NaN and infinite values, which no header shows and which ruin every image.

Works on bytes: `contracts` does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from contracts.errors import AdapterRefused
from contracts.weights.formats.safetensors import Tensor

#: Bytes read at one time; a multiple of every dtype's width.
_CHUNK_BYTES = 8 * 2**20


def check_finite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Check every value; reads the file once, in chunks.

    Raises:
        AdapterRefused: a tensor contains NaN or infinite values.
    """
    with file.open("rb") as stream:
        for name, tensor in tensors.items():
            stream.seek(tensor.begin)
            remaining = tensor.end - tensor.begin
            while remaining > 0:
                data = stream.read(min(remaining, _CHUNK_BYTES))
                remaining -= len(data)
                if not data or _has_non_finite(data, tensor.dtype):
                    raise AdapterRefused(f"{name[:120]} contains NaN or infinite values")


def _has_non_finite(data: bytes, dtype: str) -> bool:
    """Whether the exponent of a little-endian float is all ones, which means infinite or NaN.

    Whole columns of bytes are compared at a time, so that it takes no longer if all values are nearly infinite.
    """
    layout = _NON_FINITE.get(dtype)
    if layout is None:
        return False
    width, highest, next_highest = layout
    suspects = data[width - 1 :: width].translate(highest)
    if next_highest is None or 1 not in suspects:  # not `any`, which looks at each byte by itself
        return 1 in suspects
    others = data[width - 2 :: width].translate(next_highest)
    return int.from_bytes(suspects, "little") & int.from_bytes(others, "little") != 0


def _marks(*ranges: range) -> bytes:
    """A table for `bytes.translate` that makes the bytes in these ranges 1, all others 0."""
    return bytes(any(byte in values for values in ranges) for byte in range(256))


#: Bytes with all seven exponent bits that the highest byte of F32 and others has; sign positive and negative.
_SEVEN_BITS = _marks(range(0x7F, 0x80), range(0xFF, 0x100))
_FIVE_BITS = _marks(range(0x7C, 0x80), range(0xFC, 0x100))
#: dtype -> width in bytes; marks of the highest byte, and of the next one, of values that are not finite.
_NON_FINITE: Mapping[str, tuple[int, bytes, bytes | None]] = {
    "F64": (8, _SEVEN_BITS, _marks(range(0xF0, 0x100))),
    "F32": (4, _SEVEN_BITS, _marks(range(0x80, 0x100))),
    "BF16": (2, _SEVEN_BITS, _marks(range(0x80, 0x100))),
    "F16": (2, _FIVE_BITS, None),
    "F8_E5M2": (1, _FIVE_BITS, None),
    "F8_E4M3": (1, _SEVEN_BITS, None),
}
