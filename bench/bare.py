"""A plain diffusers loop with everything on the device: what it takes, for others to stand beside."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Bare:
    """One image in the loop.

    Attributes:
        seconds: median of the runs, from the prompt to the image.
        peak_bytes: of the device, weights included; None on the CPU, which does not count.
        operations: in floating point, of all products, as torch counts them while the image is generated.
    """

    seconds: float
    peak_bytes: int | None
    operations: float


def measure_bare(
    source: Path | str, device: str, dtype: torch.dtype, request: Mapping[str, object], runs: int
) -> Bare:
    """Load, generate once to warm up, then `runs` times, then once to count.

    Raises:
        torch.OutOfMemoryError: the device does not hold everything.
    """
    pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(source, dtype=dtype).to(device)
    pipeline.set_progress_bar_config(disable=True)

    def generate(seed: int) -> float:
        started = time.perf_counter()
        pipeline(**request, generator=torch.Generator("cpu").manual_seed(seed))
        return time.perf_counter() - started  # the image is on the host, so the device is done

    generate(0)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = statistics.median(generate(seed) for seed in range(runs))
    peak_bytes = torch.cuda.max_memory_allocated() if device == "cuda" else None
    with FlopCounterMode(display=False) as counter:
        generate(0)
    return Bare(seconds, peak_bytes, float(counter.get_total_flops()))


def measure_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second in one large product."""
    side, times = (8192, 20) if device == "cuda" else (512, 3)
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    found = []
    for _ in range(times):
        started = time.perf_counter()
        _ = float((matrix @ matrix)[0, 0])  # waits for the device
        found.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(found)
