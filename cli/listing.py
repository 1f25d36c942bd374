"""Prints the rows of a listing: a table for people, or JSON, one row a line. Knows no calls."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence

from cli.client import Json


def add_list_arguments(parser: argparse.ArgumentParser, limit: int) -> None:
    """Add the options of every listing; `limit` is the default of the first one."""
    parser.add_argument("--limit", type=_count, default=limit, help="maximum number of rows (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON, one row a line")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def print_rows(
    arguments: argparse.Namespace,
    head: Sequence[str],
    rows: Iterable[Json],
    row: Callable[[Json], Sequence[object]],
    nothing: str = "nothing",
) -> None:
    """Print rows as the options say.

    Args:
        head: the heads of the table's columns.
        row: an entry's cells.
        nothing: what stderr says in place of an empty table.
    """
    found = list(rows)
    if arguments.json:
        for one in found:
            print(json.dumps(one, ensure_ascii=False))
    elif found:
        print(table([tuple(head), *(tuple(map(str, row(one))) for one in found)]))
    else:
        print(nothing, file=sys.stderr)


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Lay rows out in columns, the first one being their heads."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def created_at(entry: Json) -> str:
    """When an entry was made, to the second."""
    return str(entry.get("created_at", ""))[:19].replace("T", " ")
