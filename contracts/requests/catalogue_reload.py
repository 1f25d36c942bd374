"""A catalogue whose file may change while a process runs: rows that are added or removed are taken over.

Everything that holds the catalogue sees the new rows at once. A row that has changed stays as it was until the
process starts again: its weights may be loaded. Knows neither Redis nor jobs.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.catalogue.cached import AnySpec
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.errors import CatalogueError
from contracts.requests.model_defaults import read_checked_catalogue
from contracts.weights.row_files import check_row_files

_log = logging.getLogger(__name__)

#: Interval at which processes look whether the file has changed.
RELOAD_SECONDS = 2.0
_TABLES = {
    "models": "",
    "loras": "lora:",
    "controlnets": "controlnet:",
    "ip_adapters": "ip_adapter:",
    "textual_inversions": "textual_inversion:",
    "vaes": "vae:",
    "upscalers": "upscaler:",
    "erasers": "eraser:",
    "preprocessors": "preprocessor:",
}


@dataclass(frozen=True)
class Changes:
    """The changes in a new version of the file, by the names under which jobs need rows.

    Attributes:
        changed: rows that differ and stay as they were until the process starts again.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


class CatalogueReload:
    """Watcher of the file of one process' catalogue. Thread-safe.

    Attributes:
        news: the last changes, the oldest first, for one thread that acts on them and removes them.
    """

    def __init__(self, path: Path, catalogue: Catalogue, *, keeps_removed: bool = False) -> None:
        """`keeps_removed`: removed rows stay in this catalogue, for jobs that run."""
        self._path = path
        self._catalogue = catalogue
        self._keeps_removed = keeps_removed
        self._lock = threading.Lock()
        self._digest = _digest(path)
        #: Rows as the file declares them, removed ones included.
        self._declared = dict(read_catalogue(path).rows_by_need)
        self._present = frozenset(self._declared)
        self.news: deque[Changes] = deque(maxlen=100)

    def refresh(self) -> Changes:
        """Take over what has changed in the file since the last call; nothing, where it is not there.

        Raises:
            CatalogueError: it is invalid, or files of an added row are missing or of another family. Nothing was
                taken over; said once for each version of the file.
        """
        with self._lock:
            digest = _digest(self._path)
            if digest in (None, self._digest):
                return Changes()
            self._digest = digest
            newer = read_catalogue(self._path)
            declared = newer.rows_by_need
            changed = [name for name, row in declared.items() if self._declared.get(name, row) != row]
            added = [name for name in declared if name not in self._present]
            usable = [name for name in added if name not in changed]
            for name in usable:
                check_row_files(newer, declared[name])
            removed = sorted(self._present - declared.keys())
            self._take_over(read_checked_catalogue(self._path), changed)
            self._declared |= {name: declared[name] for name in usable}
            self._present = frozenset(declared)
            changes = Changes(tuple(usable), tuple(removed), tuple(changed))
            self.news.append(changes)
            return changes

    def refresh_and_log(self) -> Changes:
        """The same; what is wrong or cannot be taken over is a line of the log."""
        try:
            changes = self.refresh()
        except CatalogueError as error:
            _log.error("the catalogue was not reloaded: %s", error)
            return Changes()
        for text, names in (("added", changes.added), ("removed", changes.removed)):
            if names:
                _log.info("catalogue: %s %s", ", ".join(names), text)
        if changes.changed:
            _log.warning("catalogue: %s changed; restart to use the new rows", ", ".join(changes.changed))
        return changes

    def _take_over(self, newer: Catalogue, changed: list[str]) -> None:
        before, rows = self._catalogue.rows_by_need, newer.rows_by_need
        rows |= {
            name: before[name] for name in rows if name in before
        }  # what runs goes on with the row that it has
        rows = {name: row for name, row in rows.items() if name in before or name not in changed}
        if self._keeps_removed:
            rows |= {name: row for name, row in before.items() if name not in rows}
        tables: dict[str, Any] = {table: _of_table(rows, prefix) for table, prefix in _TABLES.items()}
        default = newer.default_model if newer.default_model in rows else self._catalogue.default_model
        self._catalogue.take_over(newer.model_copy(update={**tables, "default_model": default}))


def _of_table(rows: dict[str, AnySpec], prefix: str) -> tuple[AnySpec, ...]:
    return tuple(row for name, row in rows.items() if name.rpartition(":")[0] == prefix.rstrip(":"))


def _digest(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:  # it is being replaced, or its volume is away
        return None
