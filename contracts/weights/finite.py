"""Checks a safetensors file for NaN and infinite values, which no header shows and which ruin every image.

Works on bytes: `contracts` does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from contracts.weights.lora_files import AdapterRefused
from contracts.weights.safetensors import Tensor

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
    """Whether the exponent of a little-endian float is all ones, which means infinite or NaN."""
    pattern = _NON_FINITE.get(dtype)
    if pattern is None:
        return False
    width, highest, lowest_next = pattern
    for match in highest.finditer(data[width - 1 :: width]):
        if lowest_next is None or data[match.start() * width + width - 2] >= lowest_next:
            return True
    return False


#: dtype -> width in bytes; highest byte of a value that is not finite; then the least that its next byte has.
_NON_FINITE: Mapping[str, tuple[int, re.Pattern[bytes], int | None]] = {
    "F64": (8, re.compile(rb"[\x7f\xff]"), 0xF0),
    "F32": (4, re.compile(rb"[\x7f\xff]"), 0x80),
    "BF16": (2, re.compile(rb"[\x7f\xff]"), 0x80),
    "F16": (2, re.compile(rb"[\x7c-\x7f\xfc-\xff]"), None),
    "F8_E5M2": (1, re.compile(rb"[\x7c-\x7f\xfc-\xff]"), None),
    "F8_E4M3": (1, re.compile(rb"[\x7f\xff]"), None),
}
