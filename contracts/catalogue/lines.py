"""Finds the line of a catalogue file that a problem is on, for the person who corrects it.

Looks for headers and keys in the text, since `tomllib` keeps no positions. Knows nothing of what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


def find_line(text: str, location: Sequence[int | str]) -> int | None:
    """The line, counted from 1, of a key such as `("models", 0, "family")`, else of its table; None if not found.

    An index counts the tables of that name: `[[models]]`. What is written inline, as `models = [{...}]`, is found
    by its key.
    """
    lines = text.splitlines()
    begin, end = 0, _first_table(lines, 0)
    if len(location) > 1 and isinstance(location[1], int):
        table = re.compile(rf"\s*\[\[\s*[\"']?{re.escape(str(location[0]))}[\"']?\s*\]\]")
        headers = [number for number, line in enumerate(lines) if table.match(line)]
        if location[1] < len(headers):
            begin = headers[location[1]]
            end = _first_table(lines, begin + 1)
            return _key(lines, begin, end, location[2:]) or begin + 1
    return _key(lines, begin, end, location)


def _key(lines: Sequence[str], begin: int, end: int, location: Sequence[int | str]) -> int | None:
    if not location:
        return None
    key = re.compile(rf"\s*[\"']?{re.escape(str(location[0]))}[\"']?\s*[=.]")
    return next((number + 1 for number in range(begin, end) if key.match(lines[number])), None)


def _first_table(lines: Sequence[str], begin: int) -> int:
    """The first header of another table of rows; a row's own sub-tables belong to it."""
    header = re.compile(r"\s*\[\[")
    return next((number for number in range(begin, len(lines)) if header.match(lines[number])), len(lines))
