"""A job that computes beside the pool's models: turns of the device, progress, memory, errors, its receipt.

It shares the engine's thread, and lets other jobs run between its steps. Knows no networks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

from PIL import Image

from contracts.errors import Unavailable
from contracts.jobs.receipt import MemoryUse, Receipt, Weights
from contracts.jobs.records import Measured
from contracts.requests.any_parameters import AnyParameters
from worker.checkpoints.places import NotPrepared
from worker.generation.inputs import open_stored, read_stored
from worker.generation.results.outputs import JobResult, failure_of
from worker.generation.results.receipts import library_versions
from worker.generation.steps.listener import StageTimer
from worker.runtime.device import describe_device, free_memory
from worker.runtime.out_of_memory import raise_if_device_failed
from worker.tasks.attempt import Attempt

_log = logging.getLogger(__name__)


class PlainTask:
    """The parts of one attempt that do not depend on what is computed.

    Attributes:
        attempt: what it may use.
        timer: of its stages.
    """

    def __init__(self, attempt: Attempt) -> None:
        """For the engine's coroutine of this job."""
        self.attempt = attempt
        self.timer = StageTimer(attempt.pool.device, attempt.on_stage)
        self._planned_bytes = 0
        self._plan = ""
        self._computed_seconds = 0.0

    def run(self, compute: Callable[[], JobResult]) -> JobResult:
        """Compute; errors become a `failed` result, in words for the client. Raises as `JobGeneration.run`."""
        try:
            return compute()
        except Exception as error:
            if isinstance(error, Unavailable | NotPrepared):
                raise
            _log.exception("job %s failed", self.attempt.flight.job.id)
            raise_if_device_failed(error, self.attempt.pool.device)
            failure = failure_of(error)
        free_memory()  # outside `except`: the traceback referred to tensors
        return JobResult("failed", error=failure)

    def read_image(self, key: str) -> Image.Image:
        """Read an input image: upright, in any of Pillow's modes with 8 bits a channel.

        Raises:
            JobFailed: INPUT_MISSING: it is no longer stored.
            Unavailable: the storage does not answer.
        """
        image = open_stored(self.read_bytes(key))
        self.timer.end_stage("read_inputs")
        return image

    def read_bytes(self, key: str) -> bytes:
        """Read an input's file; raises as `read_image`."""
        return read_stored(key, self.attempt.storage)

    def reserve(self, plans: Sequence[tuple[str, int]]) -> str:
        """Reserve memory of the device until the job ends, beside the models of other jobs in flight.

        Args:
            plans: names and bytes, the best first, which takes the most.

        Returns:
            The name of the first plan that fits.

        Raises:
            JobFailed: OUT_OF_MEMORY: none does.
        """
        flight, sizes = self.attempt.flight, dict(plans)
        flight.coroutine.take_turn("load")
        name = self.attempt.engine.residency.memory.reserve(flight, sizes)
        self._plan, self._planned_bytes = name, sizes[name]
        return name

    def steps(self, count: int) -> None:
        """Say of how many steps the job consists, before the first."""
        self.attempt.flight.steps = count

    def step(self, compute: Callable[[], None]) -> None:
        """Make one step, when it is the job's turn; before it, the job may be cancelled."""
        flight = self.attempt.flight
        flight.coroutine.take_turn("step")
        started_at = time.perf_counter()
        compute()
        self._computed_seconds += time.perf_counter() - started_at
        flight.steps_done += 1
        self.attempt.watch.step(flight.steps_done, flight.steps)

    def finish(
        self, parameters: AnyParameters, images: Sequence[Image.Image], weights: Weights, deviations: Sequence[str]
    ) -> JobResult:
        """The result of a job that has computed its images."""
        attempt, usage = self.attempt, self.attempt.flight.usage
        attempt.engine.note_memory(attempt.flight)
        receipt = Receipt(
            parameters=parameters,
            seeds=list(parameters.seeds),
            model=weights,
            pauses=usage.pauses,
            placement={"network": describe_device(attempt.pool.device)},
            memory=MemoryUse(
                plan=self._plan,
                budget_bytes=attempt.pool.plan_selector.size_bytes,
                planned_bytes=self._planned_bytes,
                peak_bytes=usage.peak_bytes,
            ),
            deviations=list(deviations),
            device=describe_device(attempt.pool.device),
            dtype="float32",
            versions={**library_versions(), **_network_versions()},
            timings={"queue": round(attempt.flight.job.queue_seconds, 4), **self.timer.seconds},
            worker=attempt.worker_name,
        )
        measured = Measured(self._computed_seconds, usage.load_seconds)
        return JobResult("generated", images=list(images), receipt=receipt, measured=measured)


def _network_versions() -> dict[str, str]:
    """The version of spandrel, which only upscalers and erasers need."""
    try:
        return {"spandrel": version("spandrel")}
    except PackageNotFoundError:
        return {}


def to_rgb_and_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colors of an image, and its transparency where it has any."""
    if not image.has_transparency_data:
        return image.convert("RGB"), None
    image = image.convert("RGBA")
    return image.convert("RGB"), image.getchannel("A")
