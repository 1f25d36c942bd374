"""How long weights take to move, and T5 on the CPU to encode.

Arithmetic on published figures; nothing was measured on this device.
"""

from __future__ import annotations

#: Bytes a second from pinned host memory to the device; published measurements: 20–25 GB/s over PCIe 4 × 16.
_TRANSFER_BYTES_A_SECOND = 20e9
#: Streaming takes longer than one copy of all weights: FLUX.1 streamed by leaves took 1.86 s a step, where
#: its 23.8 GB would cross in 1.19 s (diffusers' own benchmarks).
_STREAMING_FACTOR = 1.86 / 1.19
#: What moving a component costs beside its bytes, so that none is moved for nothing.
_MOVE_SECONDS = 0.02
#: T5-XXL (9.5 GB in two bytes a value) encoded 512 tokens in 60 core-seconds; eight cores share them.
_CPU_SECONDS_A_BYTE = 60 / 8 / 9.5e9
#: Loading a model whose files are in the page cache: building it, and one copy of its weights (SDXL's 6.9 GB:
#: 0.8 s and 0.5 s, docs/memory.md).
_BUILD_SECONDS, _LOAD_BYTES_A_SECOND = 0.8, 14e9


def move_seconds(size_bytes: int, components: int = 1) -> float:
    """To copy components of so many bytes together from host memory to the device."""
    return components * _MOVE_SECONDS + size_bytes / _TRANSFER_BYTES_A_SECOND


def stream_seconds(size_bytes: int, runs: int) -> float:
    """To stream a component of so many bytes in each of its runs."""
    return move_seconds(size_bytes) * _STREAMING_FACTOR * runs


def load_seconds(size_bytes: int) -> float:
    """To load a model into host memory whose files are in the page cache."""
    return _BUILD_SECONDS + size_bytes / _LOAD_BYTES_A_SECOND


def encode_seconds(size_bytes: int) -> float:
    """For T5 on the CPU to encode a prompt, from its bytes in the model's dtype."""
    return _CPU_SECONDS_A_BYTE * size_bytes
