"""What `darkroom up` found, for the person who started it: a table on a terminal, lines of the log elsewhere.

Reads the catalogue and the first worker's report. Decides nothing and changes nothing.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import TypeAdapter

from contracts.byte_sizes import gib
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.hub.source import HubSource
from contracts.logs import is_for_people
from contracts.memory.planner import plan
from contracts.memory.workload import default_workload
from contracts.processes.workers import WorkerReport
from contracts.settings import LogSettings

_log = logging.getLogger(__name__)

_LABEL_WIDTH = 11


class StartReport:
    """Facts about a start, each as a label and one or more lines."""

    def __init__(self) -> None:
        self._is_for_people = is_for_people(LogSettings())

    def begin(self) -> None:
        """Say what starts."""
        if self._is_for_people:
            self._print(f"Darkroom {darkroom_version()}\n\n")
        else:
            _log.info("Darkroom %s starts", darkroom_version())

    def tell(self, facts: Mapping[str, Iterable[str]]) -> None:
        """Say what was found: a label → its lines."""
        rows = [(label, number, line) for label, lines in facts.items() for number, line in enumerate(lines)]
        if self._is_for_people:
            # In one piece, since the processes that were started write to the same terminal.
            self._print(
                "".join(f"  {'' if number else label:{_LABEL_WIDTH}}{line}\n" for label, number, line in rows)
            )
        else:
            for label, _, line in rows:
                _log.info("%s: %s", label, line)

    def end(self, url: str) -> None:
        """Say what can be done with a service that is ready."""
        if self._is_for_people:
            facts = {"API": [f"{url}/docs"], "stop": ["Ctrl-C; running jobs finish first\n"]}
            self._print("\n")
            self.tell(({"page": [f"{url}/"]} if _has_page() else {}) | facts)

    def _print(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _has_page() -> bool:
    """Whether the API, whose setting it is, shows browsers a page."""
    return TypeAdapter(bool).validate_python(os.environ.get("DARKROOM_API_PAGE") or "on")


def darkroom_version() -> str:
    """The installed version; `unknown` for a source tree that was never installed."""
    try:
        return version("darkroom")
    except PackageNotFoundError:
        return "unknown"


def describe_catalogue(path: Path, catalogue: Catalogue) -> str:
    """Where it is, and how many rows it has: `models.toml, 3 models, 1 LoRA`."""
    counts = (
        (len(catalogue.models), "model", "models"),
        (len(catalogue.loras), "LoRA", "LoRAs"),
        (len(catalogue.controlnets), "ControlNet", "ControlNets"),
    )
    rows = [f"{count} {one if count == 1 else several}" for count, one, several in counts if count]
    return ", ".join([_short(path), *rows])


def describe_data(data: Path) -> str:
    """The folder, and the space that is free where it is or will be."""
    existing = next(folder for folder in (data, *data.parents) if folder.exists())
    return f"{_short(data)}, {gib(shutil.disk_usage(existing).free)} free"


def describe_devices(reports: Sequence[WorkerReport]) -> Iterator[str]:
    """Yield each device, with the memory that plans may use of it and how many workers use it."""
    devices = Counter((report.device, report.budget_bytes) for report in reports)
    for (device, budget_bytes), count in devices.items():
        memory = "" if budget_bytes is None else f", up to {gib(budget_bytes)} for models"
        yield f"{device}{memory}{'' if count == 1 else f', {count} workers'}"


def describe_models(catalogue: Catalogue, report: WorkerReport) -> Iterator[str]:
    """Yield one line for each model: its size, and how this worker places it for its default request."""
    id_width = max(len(model.id) for model in catalogue.models)
    family_width = max(len(model.family) for model in catalogue.models)
    for model in catalogue.models:
        is_default = model.id == catalogue.default_model and len(catalogue.models) > 1
        facts = f"{model.id:{id_width}}  {model.family:{family_width}}  {_placed(catalogue, model, report)}"
        yield f"{facts}{', default' if is_default else ''}"


def _placed(catalogue: Catalogue, model: ModelSpec, report: WorkerReport) -> str:
    capacity = report.capacity
    components = None if capacity is None else capacity.models.get(model.id)
    try:
        is_missing = isinstance(catalogue.place(model), HubSource) and model.id not in report.ready
    except CatalogueError as error:
        return str(error)
    where = ", to be downloaded" if is_missing else ""
    if capacity is None or components is None:
        return f"size not known yet{where}"
    size = gib(sum(component.bytes for component in components.components))
    chosen = plan(components, default_workload(model), capacity.budget_bytes, capacity.policy)
    if not chosen.fits:
        return f"{size:>9}  {chosen.reason}{where}"
    seconds = f" (+{chosen.extra_seconds:g} s for a new prompt)" if chosen.extra_seconds >= 0.1 else ""
    return f"{size:>9}  {chosen.name}{seconds}{where}"


def _short(path: Path) -> str:
    """A path as a person would write it: relative to where the command was given, where it is below that."""
    path = path.resolve()
    try:
        return os.fspath(path.relative_to(Path.cwd()))
    except ValueError:
        return os.fspath(path)
