"""Where the files of models, ControlNets and LoRAs are on this machine: found, or fetched once, and remembered.

Each has one name, as in `JobParameters.needs`: `ID`, `controlnet:ID` or `lora:ID`. Knows no queue; loads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import DarkroomError
from worker.checkpoints import loader as checkpoints
from worker.families import get_family


class NotPrepared(DarkroomError):
    """Files that must be fetched before they can be loaded, by a thread that may wait for a connection.

    Attributes:
        name: of the model, ControlNet or LoRA.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"the files of {name} are not on this machine")
        self.name = name


class PreparationWatch(Protocol):
    """Follows one preparation, and may end it."""

    def fetched(self, done_bytes: int, total_bytes: int) -> None:
        """So many bytes of the files are on this machine."""

    def is_wanted(self) -> bool:
        """Whether to go on."""

    def reading(self) -> None:
        """All files are on this machine, and are read once."""


class Unwatched:
    """A preparation that nobody follows."""

    def fetched(self, done_bytes: int, total_bytes: int) -> None:
        """Ignore it."""

    def is_wanted(self) -> bool:
        """Go on."""
        return True

    def reading(self) -> None:
        """Ignore it."""


@dataclass(frozen=True)
class _Kind:
    """How the files of one kind are found without a connection (None: not here), and fetched."""

    find: Callable[[Catalogue, str], Path | None]
    fetch: Callable[[Catalogue, str, PreparationWatch], Path]


class Places:
    """The places of one worker's files; thread-safe."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._known: dict[str, Path] = {}

    def locate(self, name: str) -> Path:
        """Return the folder or file, without opening a connection.

        Raises:
            NotPrepared: it must be fetched first.
            NotFound: the catalogue has no such row.
            CatalogueError, JobFailed: the row's source is unusable.
        """
        place = self._known.get(name)
        if place is None or not place.exists():
            kind, id = _split(name)
            place = kind.find(self._catalogue, id)
            if place is None:
                raise NotPrepared(name)
            self._known[name] = place
        return place

    def names_here(self) -> list[str]:
        """All names of the catalogue whose files are on this machine."""
        rows = self._catalogue
        names = [row.id for row in rows.models]
        names += [f"controlnet:{row.id}" for row in rows.controlnets]
        names += [f"lora:{row.id}" for row in rows.loras]
        return [name for name in names if self._is_found(name)]

    def is_here(self, name: str) -> bool:
        """Whether it can be loaded without a connection. An unusable row counts as here: loading it says why."""
        try:
            self.locate(name)
        except NotPrepared:
            return False
        except (DarkroomError, OSError):
            pass
        return True

    def _is_found(self, name: str) -> bool:
        try:
            self.locate(name)
        except (DarkroomError, OSError):
            return False
        return True

    def fetch(self, name: str, watch: PreparationWatch) -> Path:
        """Return the folder or file, downloading what is missing or damaged; may take hours.

        Raises:
            HubUnavailable, HubRefused, Cancelled: as `contracts.hub` says.
            NotFound, CatalogueError, JobFailed: as `locate`.
        """
        kind, id = _split(name)
        place = self._known[name] = kind.fetch(self._catalogue, id, watch)
        return place


def _split(name: str) -> tuple[_Kind, str]:
    kind, _, id = name.rpartition(":")
    return _KINDS[kind], id


def _find_model(catalogue: Catalogue, id: str) -> Path | None:
    spec = catalogue.model(id)
    place = catalogue.locate(spec.source)
    if isinstance(place, str):
        return None
    is_whole = place.is_dir() or (spec.config is not None and isinstance(catalogue.locate(spec.config), Path))
    return place if is_whole else None


def _fetch_model(catalogue: Catalogue, id: str, watch: PreparationWatch) -> Path:
    del watch
    spec = catalogue.model(id)
    family = get_family(spec.family)
    place = checkpoints.locate_model(catalogue, spec, family)
    checkpoints.fetch_rest(catalogue, spec, family, place)
    return place


def _find_controlnet(catalogue: Catalogue, id: str) -> Path | None:
    place = catalogue.locate(catalogue.controlnet(id).source)
    return place if isinstance(place, Path) else None


def _fetch_controlnet(catalogue: Catalogue, id: str, watch: PreparationWatch) -> Path:
    del watch
    return checkpoints.locate_controlnet(catalogue, catalogue.controlnet(id))


def _find_lora(catalogue: Catalogue, id: str) -> Path | None:
    spec = catalogue.lora(id)
    if isinstance(catalogue.locate(spec.source), str):
        return None
    return checkpoints.locate_lora(catalogue, spec)


def _fetch_lora(catalogue: Catalogue, id: str, watch: PreparationWatch) -> Path:
    del watch
    return checkpoints.locate_lora(catalogue, catalogue.lora(id))


_KINDS: Mapping[str, _Kind] = {
    "": _Kind(_find_model, _fetch_model),
    "controlnet": _Kind(_find_controlnet, _fetch_controlnet),
    "lora": _Kind(_find_lora, _fetch_lora),
}
