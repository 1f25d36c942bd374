"""Which cards `darkroom up --gpus` gives a worker each, and the environment of each worker. Loads no CUDA.

A card is named as CUDA_VISIBLE_DEVICES names it: by its number, or `GPU-…` or `MIG-…`, so that a worker sees one
card and nothing else. A slice of a card (MIG) is a card of its own, of which a process can see only one.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_DEVICE, _NAME, _BUDGET = "DARKROOM_WORKER_DEVICE", "DARKROOM_WORKER_NAME", "DARKROOM_WORKER_BUDGET_BYTES"
#: `nvidia-smi -L`: cards, each with its slices below it.
_CARD, _SLICE = re.compile(r"GPU (\d+): "), re.compile(r"\s+MIG .*\(UUID: (MIG-[\w/-]+)\)")
_TIMEOUT_SECONDS = 30.0


def choose_gpus(wanted: str, environ: Mapping[str, str]) -> list[str]:
    """The cards for `all`, or for numbers such as `0,2`, which count the cards that CUDA would see here.

    Raises:
        RuntimeError: the machine lacks a named card, one is named twice without a share for each worker, or the
            environment names a device for all workers.
    """
    if environ.get(_DEVICE):
        raise RuntimeError(f"--gpus and {_DEVICE}={environ[_DEVICE]} exclude each other; unset the variable")
    found = find_gpus(environ)
    if not found:
        raise RuntimeError(
            "--gpus: no card was found: nvidia-smi lists none, and CUDA_VISIBLE_DEVICES names none; "
            "without --gpus the CPU is used"
        )
    if wanted == "all":
        return found
    numbers = [text.strip() for text in wanted.split(",")]
    for text in numbers:
        if not re.fullmatch(r"[0-9]{1,3}", text) or int(text) >= len(found):
            raise RuntimeError(f"--gpus must be `all`, or numbers from 0 to {len(found) - 1}, got {wanted!r}")
    chosen = [found[int(text)] for text in numbers]
    if len(set(chosen)) < len(chosen) and not environ.get(_BUDGET):
        raise RuntimeError(f"--gpus {wanted} names a card twice: give each worker its share of it with {_BUDGET}")
    return chosen


def find_gpus(environ: Mapping[str, str]) -> list[str]:
    """The cards, and the slices of cards that are divided: those of CUDA_VISIBLE_DEVICES where it is set."""
    visible = environ.get(_VISIBLE)
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return [] if "-1" in names[:1] else [name for name in names if name]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607  # wherever the driver has put it
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return sorted((path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")), key=int)
    return read_list(listed)


def read_list(text: str) -> list[str]:
    """Read what `nvidia-smi -L` prints: numbers of cards, and of a divided card the names of its slices."""
    found: list[str] = []
    card: str | None = None
    for line in text.splitlines():
        if match := _CARD.match(line):
            card = match[1]
            found.append(card)
        elif match := _SLICE.match(line):
            if card is not None:
                found.remove(card)
                card = None
            found.append(match[1])
    return found


def worker_environments(environment: Mapping[str, str], count: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """The environment of each worker: `count` of them, or one for each card. Names stay unique."""
    workers = [{_VISIBLE: gpu, _DEVICE: "cuda"} for gpu in gpus] or [{} for _ in range(count)]
    name = environment.get(_NAME)
    if name and len(workers) > 1:
        workers = [{**own, _NAME: f"{name}-{number}"} for number, own in enumerate(workers, 1)]
    return [{**environment, **own} for own in workers]
