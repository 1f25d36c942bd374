"""Headers of GGUF files by hand: those that no program writes, too. Without torch and the package gguf."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any


def entry(name: str | bytes, sides: Sequence[int], kind: int, offset: int, axes: int | None = None) -> bytes:
    """One tensor's entry in a header; `axes`: the number of sides that it says."""
    raw = name if isinstance(name, bytes) else name.encode()
    head = struct.pack("<Q", len(raw)) + raw + struct.pack("<I", len(sides) if axes is None else axes)
    return head + b"".join(struct.pack("<Q", side) for side in sides) + struct.pack("<IQ", kind, offset)


def header(
    entries: Sequence[bytes],
    metadata: Sequence[bytes] = (),
    *,
    counts: tuple[int, int] | None = None,
    version: int = 3,
) -> bytes:
    """A file without data, padded to where that begins; `counts`: of tensors and metadata that it says."""
    tensors, pairs = counts or (len(entries), len(metadata))
    raw = b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + b"".join((*metadata, *entries))
    return raw + bytes(-len(raw) % 32)


def pair(key: str, kind: int, value: bytes) -> bytes:
    """One entry of metadata."""
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


def number(form: str, *values: Any) -> bytes:
    """Numbers of a form as in `struct`."""
    return struct.pack(form, *values)
