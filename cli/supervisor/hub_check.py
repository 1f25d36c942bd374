"""Asks the hub, before anything starts, for the repositories of the catalogue that were never fetched.

A hub that does not answer is no reason not to start: the workers try again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import CatalogueError, DarkroomError
from contracts.hub.access import check_access
from contracts.hub.errors import HubRefused
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
    refused = _refusals(list(_sources(catalogue)))
    if refused:
        raise RuntimeError("; ".join(f"{row}: {refusal}" for row, refusal in refused))
    return catalogue


def _sources(catalogue: Catalogue) -> Iterator[tuple[str, HubSource]]:
    """Yield each row's id with what it names on a hub."""
    rows = (*catalogue.models, *catalogue.controlnets, *catalogue.loras)
    places = [(row.id, partial(catalogue.place, row)) for row in rows]
    configs = [(model.id, partial(catalogue.locate, model.config)) for model in catalogue.models if model.config]
    for id, find in (*places, *configs):
        try:
            place = find()
        except CatalogueError:
            continue  # its jobs fail with the reason
        if isinstance(place, HubSource):
            yield id, place


def _refusals(sources: Sequence[tuple[str, HubSource]]) -> list[tuple[str, str]]:
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="hub check")
    checks = {
        source: pool.submit(check_access, source) for source in dict.fromkeys(source for _, source in sources)
    }
    done, _ = wait(checks.values(), _SECONDS)
    pool.shutdown(wait=False, cancel_futures=True)
    errors = {source: check.exception() for source, check in checks.items() if check in done}
    return [(row, str(errors[source])) for row, source in sources if isinstance(errors.get(source), HubRefused)]
