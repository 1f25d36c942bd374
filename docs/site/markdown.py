"""Tables and docstrings as Markdown. Knows nothing of what they say."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

#: `name: text`, or `name, name: text`, as the first line of an entry of a docstring's section `Attributes:`.
_ENTRY = re.compile(r"^    (?P<names>\w+(?:, \w+)*): (?P<text>.*)$")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of GitHub's Markdown; line breaks and bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return (
        re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;") if "`" not in text else _code_cell(text)
    )


def _code_cell(text: str) -> str:
    """Like `_cell`, but what stands between backticks is shown as it is."""
    parts = re.sub(r"\s+", " ", text).replace("|", "\\|").split("`")
    return "`".join(part if index % 2 else part.replace("<", "&lt;") for index, part in enumerate(parts))


def summary(described: object) -> str:
    """Return the first paragraph of a docstring as one line."""
    return re.sub(r"\s+", " ", (inspect.getdoc(described) or "").partition("\n\n")[0])


def attributes(described: object) -> dict[str, str]:
    """Return the section `Attributes:` of a docstring: name -> text.

    Raises:
        ValueError: the docstring has no such section.
    """
    _, found, section = (inspect.getdoc(described) or "").partition("Attributes:\n")
    if not found:
        raise ValueError(f"{described} does not describe its attributes")
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in section.partition("\n\n")[0].splitlines():
        if entry := _ENTRY.match(line):
            names = entry["names"].split(", ")
            texts |= dict.fromkeys(names, entry["text"])
        else:
            texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
    return texts
