"""Adds rows to a catalogue file and removes them; the rest of its text stays, and it is replaced as a whole."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from contracts.catalogue.cached import AnySpec
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.errors import CatalogueError
from contracts.requests.model_defaults import read_checked_catalogue
from contracts.weights.row_files import check_row_files

#: Kind of a row -> its table in the file, and the prefix of its name among all rows.
TABLES = {"model": "models", "lora": "loras", "controlnet": "controlnets"}
_PREFIXES = {"model": "", "lora": "lora:", "controlnet": "controlnet:"}
_HEADER = re.compile(r"\s*\[\[")


def find_row(catalogue: Catalogue, kind: str, id: str) -> AnySpec:
    """The row of this kind and id.

    Raises:
        CatalogueError: there is none; the message names those that there are.
    """
    rows = {row.id: row for row in getattr(catalogue, TABLES[kind])}
    if id not in rows:
        raise CatalogueError(f"{kind} {id!r} is not in the catalogue; there are {', '.join(rows) or 'none'}")
    row: AnySpec = rows[id]
    return row


def add_row(
    path: Path, kind: str, fields: Mapping[str, object], try_out: Callable[[Path], object] | None = None
) -> Catalogue:
    """Append a row, checked as at a start of the service; returns the catalogue with it.

    Args:
        try_out: given a file with the row in it, before that takes the catalogue's place; may refuse it.

    Raises:
        CatalogueError: the row is invalid, or its files are missing or of another family. The file is unchanged.
    """
    text = path.read_text(encoding="utf-8")
    lines = [f"[[{TABLES[kind]}]]", *(f"{name} = {_toml(value)}" for name, value in fields.items())]
    with _Replacement(path, text.rstrip("\n") + "\n\n" + "\n".join(lines) + "\n") as file:
        catalogue = read_catalogue(file.path)
        check_row_files(catalogue, find_row(catalogue, kind, str(fields["id"])))
        catalogue = read_checked_catalogue(file.path)  # the defaults of a model are compared with its files
        if try_out is not None:
            try_out(file.path)
        file.keep()
    return catalogue


def remove_row(path: Path, kind: str, id: str) -> None:
    """Remove a row with the comments inside it.

    Raises:
        CatalogueError: there is none, it is the default model, or it is not written as a table of its own.
    """
    before = read_catalogue(path)
    row = find_row(before, kind, id)
    if kind == "model" and before.default_model == id:
        raise CatalogueError(f"{id} is the default_model of {path}; set another one there first")
    index = getattr(before, TABLES[kind]).index(row)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    header = re.compile(rf"\s*\[\[\s*[\"']?{TABLES[kind]}[\"']?\s*\]\]")
    starts = [number for number, line in enumerate(lines) if header.match(line)]
    by_hand = CatalogueError(f"{path}: {kind} {id} is not written as [[{TABLES[kind]}]]; remove it by hand")
    if index >= len(starts):
        raise by_hand
    end = next((n for n in range(starts[index] + 1, len(lines)) if _HEADER.match(lines[n])), len(lines))
    with _Replacement(path, "".join(lines[: starts[index]] + lines[end:])) as file:
        expected = {name: one for name, one in before.rows_by_need.items() if name != f"{_PREFIXES[kind]}{id}"}
        if read_catalogue(file.path).rows_by_need != expected:
            raise by_hand
        file.keep()


class _Replacement:
    """A new version of a file beside it, which takes its place in one step, or is removed.

    Errors that name the new version are those of the file, for people.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._target = path.resolve()
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".toml", dir=self._target.parent)
        self.path = Path(name)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self.path.chmod(self._target.stat().st_mode & 0o777)

    def __enter__(self) -> _Replacement:
        return self

    def keep(self) -> None:
        """Put it in the place of the file."""
        self.path.replace(self._target)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with suppress(FileNotFoundError):
            self.path.unlink()
        if isinstance(error, CatalogueError):
            raise CatalogueError(str(error).replace(str(self.path), str(self._target))) from None


def _toml(value: object) -> str:
    """A value as TOML, which writes strings, numbers, booleans and lists of them as JSON does."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {_toml(item)}' for key, item in value.items())}}}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
