"""Checks, before anything starts, the settings that are misspelt, and the catalogue with what its rows name.

Files on this machine are checked by their headers; a hub is asked for the repositories that were never fetched.
One that does not answer does not prevent the start: the workers try again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from contracts.catalogue.cached import AnySpec, file_beside, select_files
from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec, NetworkSpec, VaeSpec
from contracts.catalogue.lines import find_line
from contracts.catalogue.reader import read_catalogue
from contracts.errors import CatalogueError, DarkroomError
from contracts.hub.access import check_access
from contracts.hub.errors import HubRefused
from contracts.hub.selection import Select, descriptions
from contracts.hub.source import HubSource
from contracts.requests.model_defaults import read_checked_catalogue
from contracts.settings import SharedSettings
from contracts.variables import unknown_variables
from contracts.weights.row_files import check_row_files

#: Maximum time for all of them.
_SECONDS = 10.0
_THREADS = 8


def check_variables(environ: Mapping[str, str]) -> None:
    """Check that each `DARKROOM_` variable is a setting.

    Raises:
        RuntimeError: some are not; one line that names the settings which were probably meant.
    """
    unknown = unknown_variables(environ)
    if unknown:
        raise RuntimeError("; ".join(map(str, unknown)))


def check_catalogue() -> Catalogue:
    """Return the catalogue of the settings, once its files are there and the hub has what its rows name.

    Raises:
        RuntimeError: the catalogue is invalid; or files or repositories are missing, of another family, or may
            not be read. One line that names the rows, and the lines that they are on.
    """
    path = SharedSettings().catalogue
    try:
        catalogue = read_catalogue(path)
        refused = list(_local_refusals(catalogue))
        if not refused:  # the defaults of a model are compared with its files
            catalogue = read_checked_catalogue(path)
    except DarkroomError as error:
        raise RuntimeError(str(error)) from None
    refused += _refusals(_needs(catalogue))
    if refused:
        text = path.read_text(encoding="utf-8")
        raise RuntimeError("; ".join(f"{_place_of(path, text, catalogue, row)}: {why}" for row, why in refused))
    return catalogue


def _place_of(path: Path, text: str, catalogue: Catalogue, row: str) -> str:
    """The line of the file on which the source of a row is, and the row's id."""
    kind, _, id = row.rpartition(":")
    table = f"{kind or 'model'}s"
    index = next(number for number, one in enumerate(getattr(catalogue, table)) if one.id == id)
    line = find_line(text, (table, index, "source"))
    return f"{path}{f':{line}' if line else ''}: {id}"


def _local_refusals(catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    for name, row in catalogue.rows_by_need.items():
        try:
            check_row_files(catalogue, row)
        except CatalogueError as error:
            yield name, str(error)


def _needs(catalogue: Catalogue) -> Iterator[tuple[str, HubSource, Select]]:
    """Yield each row's name with what it names on a hub, and which files it needs of that."""
    for name, row in catalogue.rows_by_need.items():
        place = _place(partial(catalogue.place, row))
        if isinstance(place, HubSource):
            yield name, place, select_files(row, place, _class_of(row))
    for model in catalogue.models:
        place = None if model.config is None else _place(partial(catalogue.locate, model.config))
        if isinstance(place, HubSource):
            yield model.id, place, descriptions(None)
        for source in model.files_beside.values():
            place = _place(partial(catalogue.locate, source))
            if isinstance(place, HubSource):
                yield model.id, place, file_beside(place)


def _class_of(row: AnySpec) -> str | None:
    """The class that a repository must be of for this row; None for those that name none, or one of several."""
    if isinstance(row, LoraSpec | VaeSpec | NetworkSpec):
        return None
    return row.class_name if isinstance(row, ControlNetSpec) else row.checkpoint_family.pipeline


def _place(find: Callable[[], Path | HubSource]) -> Path | HubSource | None:
    try:
        return find()
    except CatalogueError:
        return None  # `check_row_files` says so


def _refusals(needs: Iterable[tuple[str, HubSource, Select]]) -> Iterator[tuple[str, str]]:
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="hub check")
    checks = [(row, pool.submit(check_access, source, select)) for row, source, select in needs]
    done, _ = wait([check for _, check in checks], _SECONDS)
    pool.shutdown(wait=False, cancel_futures=True)
    for row, check in checks:
        error = check.exception() if check in done else None
        if isinstance(error, HubRefused):
            yield row, str(error)
