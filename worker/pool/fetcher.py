"""What happens to models and ControlNets before they are loaded: download, hash, page cache, sizes.

Also turns what loading raises into the error that a job's client reads.

Loads none of them. Knows nothing of what is in memory already.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import CatalogueError, FailureCode, JobFailed, NotFound, first_line
from worker.checkpoints import files, sources
from worker.checkpoints.files import ContentHasher, weight_files
from worker.families import get_family
from worker.pool.plan_selector import PlanSelector
from worker.runtime.out_of_memory import is_out_of_memory

_Loaded = TypeVar("_Loaded")


class ModelFetcher:
    """Downloads, hashes and measures models and ControlNets."""

    def __init__(self, catalogue: Catalogue, plan_selector: PlanSelector, hasher: ContentHasher) -> None:
        """`plan_selector` learns the size of each."""
        self._catalogue = catalogue
        self._plan_selector = plan_selector
        self._hasher = hasher
        self._places: dict[str, Path] = {}

    def prepare(self, name: str) -> None:
        """Download and hash the files of a model, or of a `controlnet:ID`, and read them into the page cache;
        thread-safe.

        The first time they are read through for their hash. Later, for a model that was dropped in between, only
        what the system no longer holds of them is read.
        """
        kind, _, id = name.rpartition(":")
        if kind:
            path, variant = self.locate_controlnet(id), None
        else:
            spec = self._catalogue.model(id)
            path, variant = self.locate(id), spec.variant
        self._hasher.hash(path, variant)
        for file in weight_files(path, variant):
            files.read_into_page_cache(file)

    def locate(self, id: str) -> Path:
        """A model's files, downloaded first where they are on a hub; the hub is asked once."""
        spec = self._catalogue.model(id)
        return self._place(id, lambda: sources.fetch_model(self._catalogue, spec, get_family(spec.family)))

    def locate_controlnet(self, id: str) -> Path:
        """The same for a ControlNet."""
        spec = self._catalogue.controlnet(id)
        return self._place(f"controlnet:{id}", lambda: sources.fetch_controlnet(self._catalogue, spec))

    def measure(self, id: str) -> None:
        """Have the plan selector know the model's components; one on a hub is downloaded for that."""
        if not self._plan_selector.knows(id):
            self._plan_selector.add_model(id, self.locate(id))

    def measure_controlnet(self, id: str, model: str) -> None:
        """Have the plan selector know its size beside this model; one on a hub is downloaded for that."""
        if not self._plan_selector.knows_controlnet(id):
            self._plan_selector.add_controlnet(id, model, self.locate_controlnet(id))

    def _place(self, name: str, locate: Callable[[], Path]) -> Path:
        place = self._places.get(name)
        if place is None or not place.exists():
            place = self._places[name] = locate()
        return place


def load_errors_as_job_failed(id: str, load: Callable[[], _Loaded]) -> _Loaded:
    """Return the result of `load`; what it raises becomes the error that a job's client reads.

    Raises:
        JobFailed: with MODEL_LOAD_FAILED.
        Exception: failed allocations (`is_out_of_memory`), as they are: a smaller plan may help.
    """
    try:
        return load()
    except JobFailed:
        raise
    except (NotFound, CatalogueError) as error:
        raise JobFailed(FailureCode.MODEL_LOAD_FAILED, f"{id} cannot be loaded: {error}") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise
        message = f"{id} cannot be loaded: {first_line(error)}"
        raise JobFailed(FailureCode.MODEL_LOAD_FAILED, message) from error
