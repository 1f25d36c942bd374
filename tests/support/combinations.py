"""Which combinations of families, modes and schedulers a test tries: in `make test` few, in `make judge` all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

Row = TypeVar("Row", bound=tuple[Any, ...])
Value = TypeVar("Value")
#: Set by `make judge`.
ALL = bool(os.environ.get("DARKROOM_TEST_ALL_COMBINATIONS"))


def usual_or_all(usual: Value, values: Iterable[Value]) -> list[Value]:
    """One value that stands for the others; all values where the environment asks for them."""
    return list(values) if ALL else [usual]


def covering(rows: Sequence[Row]) -> list[Row]:
    """Few rows in which each value of each column occurs; all rows where the environment asks for them.

    Greedy: next comes the row with the most values that no row before it had, and among equals the one whose
    values are the rarest so far, so that for instance modes are spread over families.
    """
    if ALL:
        return list(rows)
    missing = {(column, value) for row in rows for column, value in enumerate(row)}
    chosen: list[Row] = []
    uses: Counter[tuple[int, Any]] = Counter()
    while missing:
        row = max(rows, key=lambda row: _worth(row, missing, uses))
        chosen.append(row)
        missing -= set(enumerate(row))
        uses.update(enumerate(row))
    return chosen


def _worth(row: tuple[Any, ...], missing: set[tuple[int, Any]], uses: Counter[tuple[int, Any]]) -> tuple[int, int]:
    cells = set(enumerate(row))
    return len(cells & missing), -sum(uses[cell] for cell in cells)
