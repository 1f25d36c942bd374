"""Asks the hub, before anything starts, for the repositories of the catalogue that were never fetched.

A hub that does not answer does not prevent the start: the workers try again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from contracts.catalogue.cached import select_files
from contracts.catalogue.catalogue import Catalogue
from contracts.errors import CatalogueError, DarkroomError
from contracts.hub.access import check_access
from contracts.hub.errors import HubRefused
from contracts.hub.selection import Select, descriptions
from contracts.hub.source import HubSource
from contracts.requests.model_defaults import read_checked_catalogue
from contracts.settings import SharedSettings

#: Maximum time for all of them.
_SECONDS = 10.0
_THREADS = 8


def check_catalogue() -> Catalogue:
    """Return the catalogue of the settings, once the hub has what its rows name and lets this token read it.

    Raises:
        RuntimeError: the catalogue is invalid, or repositories are missing or gated; one line that names the rows.
    """
    try:
        catalogue = read_checked_catalogue(SharedSettings().catalogue)
    except DarkroomError as error:
        raise RuntimeError(str(error)) from None
    refused = list(_refusals(_needs(catalogue)))
    if refused:
        raise RuntimeError("; ".join(f"{row}: {refusal}" for row, refusal in refused))
    return catalogue


def _needs(catalogue: Catalogue) -> Iterator[tuple[str, HubSource, Select]]:
    """Yield each row's id with what it names on a hub, and which files it needs of that."""
    for row in catalogue.rows_by_need.values():
        place = _place(partial(catalogue.place, row))
        if isinstance(place, HubSource):
            yield row.id, place, select_files(row, place)
    for model in catalogue.models:
        place = None if model.config is None else _place(partial(catalogue.locate, model.config))
        if isinstance(place, HubSource):
            yield model.id, place, descriptions(None)


def _place(find: Callable[[], Path | HubSource]) -> Path | HubSource | None:
    try:
        return find()
    except CatalogueError:
        return None  # its jobs fail with the reason


def _refusals(needs: Iterable[tuple[str, HubSource, Select]]) -> Iterator[tuple[str, str]]:
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="hub check")
    checks = [(row, pool.submit(check_access, source, select)) for row, source, select in needs]
    done, _ = wait([check for _, check in checks], _SECONDS)
    pool.shutdown(wait=False, cancel_futures=True)
    for row, check in checks:
        error = check.exception() if check in done else None
        if isinstance(error, HubRefused):
            yield row, str(error)
