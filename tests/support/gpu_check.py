"""Checks a CUDA card in under four minutes: `make gpu-check`, or `python -m tests.support.gpu_check`.

Each block prints its JSON lines as soon as it has them, fails alone and has a limit of its own, so that a run that
is cut off still tells something. SDXL with random weights (7 GB on disk) stands for a model of real size. What the
figures were on a card that has been met stands in docs/gpu.md. Without a CUDA device, or with `--tiny`, the shapes
model stands in on the CPU: the blocks that need no device run, and their figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.support.gpu_blocks import hardware, memory, quantized, speed
from tests.support.gpu_blocks.setup import Setup, prepare
from worker.runtime.warnings import silence_known_warnings

#: With what a block may take at most, in seconds; in the order in which they are worth most.
_ORDER = (
    (hardware.environment, 10), (hardware.host_memory, 20), (hardware.uploads, 20), (hardware.failing_device, 40),
    (speed.cold_load, 40), (speed.steps, 50), (memory.workspaces, 30), (memory.budgets, 60), (memory.moves, 50),
    (speed.cold_beside, 40), (speed.streaming, 40), (speed.lora, 30), (hardware.t5_arithmetic, 30),
    (quantized.bitsandbytes, 30), (speed.compiled, 70), (speed.whole_graphs, 60), (speed.profile, 40),
)  # fmt: skip
BLOCKS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {block.__name__: block for block, _ in _ORDER}
_LIMITS = {block.__name__: seconds for block, seconds in _ORDER}
#: Blocks that say nothing without a device.
_NEED_DEVICE = ("environment", "failing_device", "bitsandbytes", "profile")
ON_ANY_DEVICE = tuple(name for name in BLOCKS if name not in _NEED_DEVICE)


class OutOfTimeError(Exception):
    """A block has reached its limit, or the deadline of all."""


def main() -> int:
    """Run all blocks; returns the exit status: 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the checkpoint is written; default: a temporary folder")
    parser.add_argument("--seconds", type=float, default=225, help="after this long, all is over (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=BLOCKS, metavar="BLOCK", help=", ".join(BLOCKS))
    parser.add_argument("--tiny", action="store_true", help="the shapes model on the CPU")
    arguments = parser.parse_args()
    silence_known_warnings()
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    tiny = arguments.tiny or not torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        setup = prepare(arguments.folder or Path(folder), started + arguments.seconds, tiny=tiny)
        show("prepared", seconds=time.monotonic() - started)
        names = arguments.only or [name for name in BLOCKS if not tiny or name in ON_ANY_DEVICE]
        failed = [name for name in names if not run(name, setup)]
        return 1 if failed else 0


def run(name: str, setup: Setup, limit_seconds: float | None = None) -> bool:
    """Run one block and show its rows; False where it failed or took too long.

    Args:
        limit_seconds: None: the block's own; less where the deadline is nearer.
    """
    left = setup.deadline - time.monotonic()
    if left <= 0:
        show(name, skipped="no time is left")
        return True
    try:
        with _limited(min(left, _LIMITS[name] if limit_seconds is None else limit_seconds)):
            for figures in BLOCKS[name](setup):
                show(name, **figures)
    except Exception as error:  # noqa: BLE001 - the other blocks go on
        show(name, error=f"{type(error).__name__}: {error}"[:300])
        return False
    finally:
        gc.collect()
        torch._dynamo.reset()
        if setup.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    return True


def show(name: str, **figures: object) -> None:
    """Print one line of JSON."""
    print(json.dumps({"block": name, **figures}, default=str), flush=True)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError inside after this time; in the main thread only."""

    def stop(*_: object) -> None:
        raise OutOfTimeError(f"stopped after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
