"""Looks at the values in an adapter's file: one that is no number spoils all images, and no header tells of it.

Knows bytes only: torch, which would tell, is not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from contracts.weights.lora_files import AdapterRefused
from contracts.weights.safetensors import Tensor

#: How much of a file is looked through at one time.
_CHUNK_BYTES = 8 * 2**20


def check_finite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Look at every value; reads the file once, in pieces.

    Raises:
        AdapterRefused: one is infinite or no number.
    """
    with file.open("rb") as stream:
        for name, tensor in tensors.items():
            stream.seek(tensor.begin)
            left = tensor.end - tensor.begin
            while left > 0:
                data = stream.read(min(left, _CHUNK_BYTES))
                left -= len(data)
                if not data or _holds_no_number(data, tensor.dtype):
                    raise AdapterRefused(f"{name[:120]} holds values that are no numbers")


def _holds_no_number(data: bytes, dtype: str) -> bool:
    """Whether the exponent of a little-endian float is all ones, which means infinite or no number."""
    pattern = _NO_NUMBERS.get(dtype)
    if pattern is None:
        return False
    width, suspect, below = pattern
    for match in suspect.finditer(data[width - 1 :: width]):
        if below is None or data[match.start() * width + width - 2] >= below:
            return True
    return False


#: dtype -> its bytes, how the highest byte looks, and the least that the next one has then.
_NO_NUMBERS: Mapping[str, tuple[int, re.Pattern[bytes], int | None]] = {
    "F64": (8, re.compile(rb"[\x7f\xff]"), 0xF0),
    "F32": (4, re.compile(rb"[\x7f\xff]"), 0x80),
    "BF16": (2, re.compile(rb"[\x7f\xff]"), 0x80),
    "F16": (2, re.compile(rb"[\x7c-\x7f\xfc-\xff]"), None),
    "F8_E5M2": (1, re.compile(rb"[\x7c-\x7f\xfc-\xff]"), None),
    "F8_E4M3": (1, re.compile(rb"[\x7f\xff]"), None),
}
