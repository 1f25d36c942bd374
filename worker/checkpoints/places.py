"""Where the files of models, ControlNets and LoRAs are on this machine: found, or fetched once, and remembered.

Each has one name, as in `JobParameters.needs`: `ID`, `controlnet:ID`, `lora:ID`, `ip_adapter:ID` or
`textual_inversion:ID`. Knows no queue; loads nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from contracts.catalogue.catalogue import AnySpec, Catalogue, ControlNetSpec, NetworkSpec, VaeSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import DarkroomError, NotFound, Unavailable
from contracts.hub.source import HubSource
from contracts.hub_revisions import Revisions, pin_row
from contracts.jobs.receipt import Weights
from worker.checkpoints import sources
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
    """Observer of one preparation, which may end it."""

    def fetched(self, done_bytes: int, total_bytes: int) -> None:
        """Report that this many bytes of the files are on this machine."""

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


class Places:
    """The places of one worker's files; thread-safe."""

    def __init__(
        self,
        catalogue: Catalogue,
        revisions: Revisions | None = None,
        *,
        without_t5: bool = False,
        reload: Callable[[], object] = lambda: None,
    ) -> None:
        """
        Args:
            revisions: what branches on a hub are for the whole service; None: for this process alone.
            reload: reads the catalogue's file again: the API may have seen a new row before this worker.
            without_t5: this worker never loads a T5 that a family works without, so it is not fetched.
        """
        self._without_t5 = without_t5
        self._reload = reload
        self._catalogue = catalogue
        self._revisions = revisions or Revisions()
        self._known: dict[str, Path] = {}

    def row(self, name: str) -> AnySpec:
        """Return the catalogue's row, with the commit of its revision on a hub.

        Raises:
            NotPrepared: the commit is not known yet.
            NotFound: the name is not in the catalogue.
            CatalogueError: the row's source is unusable.
            Unavailable: as `Revisions.known`.
        """
        return self._pinned(name, self._revisions.known)

    def resolve(self, name: str) -> AnySpec:
        """The same, asking a hub for the commit where the service does not know it.

        Raises:
            HubUnavailable, HubRefused: as `contracts.hub.snapshot.resolve_commit`.
            NotFound, CatalogueError, Unavailable: as `row`.
        """
        return self._pinned(name, self._revisions.resolve)

    def locate(self, name: str) -> Path:
        """Return the folder or file, without asking a hub.

        Raises:
            NotPrepared: it must be fetched first.
            JobFailed: a folder on this machine does not hold what the row needs.
            NotFound, CatalogueError, Unavailable: as `row`.
        """
        place = self._known.get(name)
        if place is None or not place.exists():
            place = self._find(self.row(name))
            if place is None:
                raise NotPrepared(name)
            self._known[name] = place
        return place

    def weights(self, name: str, sha256: str) -> Weights:
        """Describe what was loaded, for receipts: id, content, and the commit on a hub. Raises as `row`."""
        row = self.row(name)
        place = self._catalogue.place(row)
        origin = (place.repository, place.revision) if isinstance(place, HubSource) else (None, None)
        family = None if isinstance(row, NetworkSpec) else row.family
        return Weights(id=row.id, sha256=sha256, family=family, repository=origin[0], revision=origin[1])

    def fetch(self, name: str, watch: PreparationWatch) -> Path:
        """Return the folder or file, fetching what is missing or damaged; may take hours.

        Raises:
            HubUnavailable, HubRefused, Cancelled: as `contracts.hub.snapshot.fetch`.
            NotFound, CatalogueError, JobFailed, Unavailable: as `locate`.
        """
        row = self.resolve(name)
        progress, is_wanted = watch.fetched, watch.is_wanted
        if isinstance(row, ModelSpec):
            place = sources.fetch_model(
                self._catalogue,
                row,
                get_family(row.checkpoint_family.id),
                on_progress=progress,
                is_wanted=is_wanted,
                without_t5=self._without_t5,
            )
        elif isinstance(row, ControlNetSpec | VaeSpec):
            place = sources.fetch_component(self._catalogue, row, on_progress=progress, is_wanted=is_wanted)
        elif isinstance(row, NetworkSpec):
            place = sources.fetch_network(self._catalogue, row, on_progress=progress, is_wanted=is_wanted)
        else:
            place = sources.fetch_lora(self._catalogue, row, on_progress=progress, is_wanted=is_wanted)
        self._known[name] = place
        return place

    def is_here(self, name: str) -> bool:
        """Whether it can be prepared without a download. An unusable row counts as here: loading it says why."""
        try:
            self.locate(name)
        except NotPrepared:
            return False
        except (DarkroomError, OSError):
            pass
        return True

    def names_here(self) -> list[str]:
        """All names of the catalogue whose files are on this machine."""
        found = []
        # What is remembered first: it needs no Redis.
        for name in sorted(self._catalogue.rows_by_need, key=lambda name: name not in self._known):
            try:
                self.locate(name)
            except Unavailable:
                break  # the heartbeat must not wait for Redis once for each of them
            except (DarkroomError, OSError):
                continue
            found.append(name)
        return found

    def _find(self, row: AnySpec) -> Path | None:
        if isinstance(row, ModelSpec):
            family = get_family(row.checkpoint_family.id)
            return sources.find_model(self._catalogue, row, family, without_t5=self._without_t5)
        if isinstance(row, ControlNetSpec | VaeSpec):
            return sources.find_component(self._catalogue, row)
        if isinstance(row, NetworkSpec):
            return sources.find_network(self._catalogue, row)
        return sources.find_lora(self._catalogue, row)

    def _pinned(self, name: str, commit_of: Callable[[HubSource], str | None]) -> AnySpec:
        """The row with its commits; raises NotPrepared where one is not known."""

        def known_commit(source: HubSource) -> str:
            commit = commit_of(source)
            if commit is None:
                raise NotPrepared(name)
            return commit

        return pin_row(self._catalogue, self._row(name), known_commit)

    def _row(self, name: str) -> AnySpec:
        try:
            return self._row_now(name)
        except NotFound:
            self._reload()
            return self._row_now(name)

    def _row_now(self, name: str) -> AnySpec:
        kind, _, id = name.rpartition(":")
        if kind == "controlnet":
            return self._catalogue.controlnet(id)
        if kind == "vae":
            return self._catalogue.vae(id)
        if kind == "ip_adapter":
            return self._catalogue.ip_adapter(id)
        if kind == "upscaler":
            return self._catalogue.upscaler(id)
        if kind == "eraser":
            return self._catalogue.eraser(id)
        if kind == "preprocessor":
            return self._catalogue.preprocessor(id)
        if kind == "textual_inversion":
            return self._catalogue.textual_inversion(id)
        return self._catalogue.lora(id) if kind == "lora" else self._catalogue.model(id)
