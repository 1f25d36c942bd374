"""Plain tables of measured figures, for a terminal and for Markdown alike."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


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
