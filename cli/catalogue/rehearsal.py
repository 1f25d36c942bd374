"""Tries a model in a process of its own before it is offered: it is loaded and makes one small image.

That process is `python -m worker.check`, with a worker's settings. Where no worker is installed, nothing is tried.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from contracts.errors import CatalogueError

_REMEDY = "add it anyway with --no-rehearsal"


def rehearse(id: str, catalogue: Path) -> None:
    """Have a model of a catalogue file make an image, and say so.

    Raises:
        CatalogueError: it does not, and why.
    """
    if find_spec("worker") is None:
        print(f"{id}: not rehearsed, since no worker is installed here", file=sys.stderr)
        return
    print(f"{id}: loading it to make one small image", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "worker.check", "--model", id],
        env={**os.environ, "DARKROOM_CATALOGUE": str(catalogue)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise CatalogueError(f"{id} was not added: {_reason(done)}; {_REMEDY}")
    said = [line.removeprefix("model").strip() for line in done.stdout.splitlines() if line.startswith("model")]
    print("\n".join(said), flush=True)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The line by which the process ended, or what ended it."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    said = [line.removeprefix("darkroom: ") for line in lines if line.startswith("darkroom: ")]
    if said:
        return said[-1]
    if done.returncode < 0:
        return f"the process that tried it was killed by signal {-done.returncode}, perhaps for lack of memory"
    return lines[-1] if lines else f"the process that tried it exited with status {done.returncode}"
