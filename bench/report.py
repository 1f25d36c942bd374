"""One form for all benches: the options they share, tables, and reports of what was measured, where and when.

What a bench prints goes to the terminal and into `bench/results/NAME.md`, which git does not keep;
`python -m bench.page` puts it into the page.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("torch", "diffusers", "transformers", "peft", "redis", "rq", "fastapi", "litserve")


def options(about: str | None, runs: int | None = None) -> argparse.ArgumentParser:
    """A parser with what all benches take; `runs`: how often each figure is taken, None where nothing is timed."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    if runs is not None:
        parser.add_argument("--runs", type=int, default=runs, help="of each figure (%(default)s)")
    return parser


@contextmanager
def report(name: str) -> Iterator[None]:
    """What is printed inside, under a line with the command, the day, the machine and the versions."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.md").open("w", encoding="utf-8") as file, redirect_stdout(_Both(sys.stdout, file)):
        print(_headline(name), end="\n\n")
        yield


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median and range of several runs, as `12.3 (11.9–13.0)`."""
    median, low, high = statistics.median(values), min(values), max(values)
    return f"{median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0–1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def to_table(head: str | Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table with aligned columns; the head may be one string, its cells separated by ` | `."""
    head = head.split(" | ") if isinstance(head, str) else head
    lines = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = ["| " + " | ".join(map(str.ljust, line, widths)) + " |\n" for line in lines]
    return "".join([texts[0], "|", "|".join("-" * (width + 2) for width in widths), "|\n", *texts[1:]])


def print_table(head: str | Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(to_table(head, rows), end="")


def _headline(name: str) -> str:
    command = shlex.join(["python", "-m", f"bench.{name}", *sys.argv[1:]])
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    machine = f"{cores} cores of {_processor()}, load {load:.1f} before"
    return f"`{command}`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine}; {', '.join(_versions())}"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> Iterator[str]:
    yield f"Python {platform.python_version()}"
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):
            yield f"{library} {version(library)}"


class _Both(io.TextIOBase):
    def __init__(self, *files: TextIO) -> None:
        self._files = files

    def write(self, text: str) -> int:
        return max(file.write(text) for file in self._files)

    def flush(self) -> None:
        for file in self._files:
            file.flush()
