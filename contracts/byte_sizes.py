"""Sizes as people write and read them: `20GiB`, `500 MB`, `1.5 GiB`."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", 1)},
}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]+)", re.ASCII)


def read_size(text: str) -> int:
    """Bytes of a size with a unit: KB, MB, GB and TB are powers of 1000, KiB, MiB, GiB and TiB powers of 1024.

    Raises:
        ValueError: it is not a size; the message says what is.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f"must be a size such as 12GiB or 500MB, got {text[:40]!r}")
    return int(Decimal(match[1]) * unit)


def gib(count: int) -> str:
    """Bytes for people, in GiB or MiB."""
    if not count:
        return "0"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 // 10 else f"{count / 2**20:.1f} MiB"
