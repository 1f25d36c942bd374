"""Prepares models, ControlNets and LoRAs for loading: download, hash, page cache, sizes.

Also turns what preparing and loading raise into the errors that a job's client reads. Loads none of them. Knows
nothing of what is in memory already.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, cast

from redis.exceptions import RedisError

from contracts.catalogue.cached import AnySpec
from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, IpAdapterSpec, NetworkSpec, VaeSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.rows.networks import FileNetworkSpec, MapKind, PreprocessorSpec
from contracts.errors import AdapterRefused, CatalogueError, DarkroomError, NotFound, Unavailable
from contracts.hub.errors import Cancelled, HubRefused, HubUnavailable
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.receipt import Weights
from contracts.weights.adapters.ip_adapter_rows import check_ip_adapter_row
from contracts.weights.networks import check_network_row
from contracts.weights.vae_files import check_vae_row
from worker.adapters.files import missing
from worker.checkpoints import files
from worker.checkpoints.controls.t2i_adapters import rehearse_t2i_adapter
from worker.checkpoints.files import ContentHasher, weight_files
from worker.checkpoints.networks import require_spandrel
from worker.checkpoints.places import NotPrepared, Places, PreparationWatch
from worker.checkpoints.rehearsal import rehearse_controlnet, rehearse_model
from worker.checkpoints.sources import weights_beside
from worker.families import get_family
from worker.pool.plan_selector import PlanSelector
from worker.runtime.out_of_memory import is_out_of_memory

_log = logging.getLogger(__name__)

_Loaded = TypeVar("_Loaded")

#: A disk that is full, or on which this user may have no more.
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)


class PreparationDelayed(DarkroomError):
    """Files that could not be prepared for now, as a sentence for clients.

    Attributes:
        retry_seconds: when to try again, where the hub said so.
    """

    def __init__(self, message: str, retry_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class ModelFetcher:
    """Fetcher that downloads, hashes and measures what jobs need, by its name as in `JobParameters.needs`."""

    def __init__(
        self, catalogue: Catalogue, plan_selector: PlanSelector, hasher: ContentHasher, places: Places
    ) -> None:
        """`plan_selector` learns the size of each model and ControlNet."""
        self._catalogue = catalogue
        self._plan_selector = plan_selector
        self._hasher = hasher
        self._places = places

    def prepare(self, name: str, watch: PreparationWatch) -> None:
        """Download and hash the files of a model, `controlnet:ID` or `lora:ID`, and read them into the page cache;
        thread-safe. The only call that opens connections: it must not run in the thread that runs the jobs.

        The first time they are read through for their hash. Later, for a model that was dropped in between, only
        what the system no longer holds of them is read.

        Raises:
            PreparationDelayed: it may succeed later.
            JobFailed: it cannot succeed, and why.
            Cancelled: it is no longer needed.
            Exception: what reading the files raises.
        """
        try:
            path = self._places.fetch(name, watch)
            with suppress(CatalogueError):  # loading reports it
                self._measure(name, path)
            watch.reading()
            self._read(self._places.row(name), path)
        except (JobFailed, Cancelled):
            raise
        except HubUnavailable as error:
            raise PreparationDelayed(str(error), error.retry_seconds) from error
        except (Unavailable, RedisError) as error:
            raise PreparationDelayed("the queue (Redis) or the storage does not answer") from error
        except OSError as error:
            if error.errno not in _DISK_IS_FULL:
                raise
            raise PreparationDelayed("the worker's disk is full, so no files can be downloaded") from error
        except (NotFound, CatalogueError, HubRefused) as error:
            raise _refusal(name, error) from error

    def _read(self, row: AnySpec, path: Path) -> None:
        """Hash everything that is loaded, and have it in the page cache."""
        variant, beside = None, []
        if isinstance(row, ModelSpec):
            variant, beside = (
                row.variant,
                weights_beside(self._catalogue, row, get_family(row.checkpoint_family.id), path),
            )
        self._hasher.hash(path, variant, beside)
        for file in (*weight_files(path, variant), *beside):
            files.read_into_page_cache(file)

    def measure_missing(self) -> bool:
        """Ask hubs for the sizes of all that is not on this machine, so that requests are planned by them at once.

        Agrees on no commit: that is for the first download.

        Returns:
            Whether every hub answered; a refusal is an answer.
        """
        answered = True
        for name, row in self._catalogue.rows_by_need.items():
            if not self._places.is_here(name):
                answered &= self._plan_selector.measure_on_hub(row)
        return answered

    def measure_added(self, names: Iterable[str]) -> None:
        """Have plans know the sizes of rows that were added, as far as files here or their hubs tell them now."""
        for name in names:
            try:
                self._measure(name, self._places.locate(name))
            except NotPrepared:
                self._plan_selector.measure_on_hub(self._catalogue.rows_by_need[name])
            except (DarkroomError, OSError) as error:
                _log.warning("the size of %s is not known: %s", name, error)

    def is_here(self, name: str) -> bool:
        """Whether it can be prepared without a connection."""
        return self._places.is_here(name)

    def names_here(self) -> list[str]:
        """All names of the catalogue whose files are on this machine."""
        return self._places.names_here()

    def model_row(self, id: str) -> ModelSpec:
        """A model's row, with the commits that it is loaded from; raises NotPrepared."""
        return cast("ModelSpec", self._places.row(id))

    def locate(self, id: str) -> Path:
        """A model's files, which must be on this machine; raises NotPrepared."""
        return self._places.locate(id)

    def locate_vae(self, id: str) -> Path:
        """The same for a VAE, whose size plans know from then on."""
        place = self._places.locate(f"vae:{id}")
        self._measure(f"vae:{id}", place)
        return place

    def locate_controlnet(self, id: str) -> Path:
        """The same for a ControlNet."""
        return self._places.locate(f"controlnet:{id}")

    def network(self, name: str) -> tuple[Path, Weights]:
        """The file of a network that runs by itself (`upscaler:ID`), and what a receipt says of it.

        Raises:
            NotPrepared: it must be fetched first.
            NotFound, CatalogueError, Unavailable: as `Places.row`.
        """
        path = self._places.locate(name)
        return path, self._places.weights(name, self._hasher.hash(path))

    def preprocessor(self, id: str) -> tuple[MapKind, Path, Weights]:
        """What a preprocessor makes, its folder, and what a receipt says of it; raises as `network`."""
        name = f"preprocessor:{id}"
        return cast("PreprocessorSpec", self._places.row(name)).kind, *self.network(name)

    def rehearse(self, name: str) -> None:
        """Check a model or `controlnet:ID` as far as descriptions and headers tell; raises as `rehearse_model`."""
        row, path = self._places.row(name), self._places.locate(name)
        if isinstance(row, ModelSpec):
            rehearse_model(self._catalogue, row, get_family(row.checkpoint_family.id), path)
        elif isinstance(row, NetworkSpec):
            if isinstance(row, FileNetworkSpec):
                require_spandrel()
            check_network_row(row, path)
        elif isinstance(row, IpAdapterSpec):
            check_ip_adapter_row(self._catalogue, row, path)
        elif isinstance(row, VaeSpec):
            check_vae_row(row, path)
        elif isinstance(row, ControlNetSpec) and row.is_t2i_adapter:
            rehearse_t2i_adapter(get_family(row.family_spec.id), path)
        elif isinstance(row, ControlNetSpec):
            rehearse_controlnet(get_family(row.family_spec.id), path, len(row.modes))

    def measure(self, id: str) -> None:
        """Have the plan selector know the model's components; raises NotPrepared."""
        self._measure(id, self.locate(id))

    def measure_controlnet(self, id: str) -> None:
        """Have the plan selector know its size; raises NotPrepared."""
        self._measure(f"controlnet:{id}", self.locate_controlnet(id))

    def _measure(self, name: str, path: Path) -> None:
        if not self._plan_selector.is_measured(name):
            self._plan_selector.measure(name, path)


def load_errors_as_job_failed(id: str, load: Callable[[], _Loaded]) -> _Loaded:
    """Return the result of `load`; what it raises becomes the error that a job's client reads.

    Raises:
        JobFailed: with MODEL_LOAD_FAILED.
        NotPrepared: its files are not on this machine.
        Unavailable: Redis does not answer.
        Exception: failed allocations (`is_out_of_memory`), as they are: a smaller plan may help.
    """
    try:
        return load()
    except (JobFailed, NotPrepared, Unavailable):
        raise
    except (NotFound, CatalogueError, AdapterRefused) as error:
        raise _refusal(id, error) from error
    except Exception as error:
        if is_out_of_memory(error):
            raise
        message = f"{id} cannot be loaded: its files are unusable ({type(error).__name__}); see the worker's log"
        raise JobFailed(FailureCode.MODEL_LOAD_FAILED, message) from error


def _refusal(name: str, error: Exception) -> JobFailed:
    """Why something cannot be prepared, in a sentence without a path."""
    kind, _, id = name.rpartition(":")
    is_adapter = kind in ("lora", "ip_adapter", "textual_inversion")
    code = missing(kind) if is_adapter else FailureCode.MODEL_LOAD_FAILED
    nouns = {
        "lora": "LoRA",
        "controlnet": "ControlNet",
        "ip_adapter": "IP-Adapter",
        "textual_inversion": "textual inversion",
        "vae": "VAE",
        "upscaler": "upscaler",
        "eraser": "eraser",
        "preprocessor": "preprocessor",
    }
    shown = f"{nouns[kind]} {id}" if kind in nouns else id
    if isinstance(error, NotFound):
        reason = "it was removed from the catalogue while the job was waiting; use another one"
    elif isinstance(error, CatalogueError):
        _log.error("%s: %s", shown, error)
        place, _, rest = str(error).partition(": ")
        reason = rest if rest and place.startswith(("/", ".", "~")) else str(error)
    else:
        reason = str(error)
    return JobFailed(code, f"{shown} cannot be loaded: {reason}")
