"""One job in flight, as the engine sees it: the facts that its policy and its receipt need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from contracts.jobs.records import Measured
from contracts.memory.plan import Plan
from contracts.memory.sizes.component import Role
from contracts.requests.parameters import JobParameters
from contracts.requests.task_parameters import TaskParameters
from worker.adapters.cache import AdapterSet
from worker.engine.coroutine import Coroutine
from worker.engine.policy import BACKGROUND_TIER
from worker.pool.model import LoadedModel


@dataclass(frozen=True)
class Job:
    """A job as its worker has claimed it.

    Attributes:
        tier: 0 for `high`, 1 for `normal`, 2 for `low`, 3 for what runs in the background.
        exact: whether its calls are made alone, so that its images have the bytes of a fresh process.
        accepted_at, deadline_at: seconds of `time.monotonic`.
    """

    id: str
    parameters: TaskParameters
    queue_seconds: float = 0.0
    owner: str = ""
    tier: int = 1
    exact: bool = True
    accepted_at: float = 0.0
    deadline_at: float | None = None

    @property
    def generation(self) -> JobParameters | None:
        """What its pipeline of the pool is called with; None for a job that loads no model of the pool."""
        return self.parameters if isinstance(self.parameters, JobParameters) else None

    @property
    def is_background(self) -> bool:
        """Whether it leaves the device where others need its room."""
        return self.tier >= BACKGROUND_TIER


@dataclass(eq=False)
class Placed:
    """Loaded model and memory plan of a job in flight.

    Attributes:
        model: as it was loaded when the job began.
        plan: of the job alone; the device is set up by it before each of the job's calls.
    """

    model: LoadedModel
    plan: Plan

    @cached_property
    def turn(self) -> tuple[object, ...]:
        """What the device must be set up for; equal for jobs between which no weights move."""
        return (id(self.model), tuple(self.plan.placements.items()), self.plan.tile_side)

    @property
    def slot_bytes(self) -> dict[str, int]:
        """Bytes of the slots of LoRAs, which all jobs of the model share, by what tells them from others."""
        parts = (part for part in self.plan.components if part.role is Role.LORA_SLOTS)
        return {f"{part.name} {id(self.model)}": part.device_bytes for part in parts}


@dataclass
class Usage:
    """Use of the worker by one job.

    Attributes:
        calls: of the denoiser.
        own_rows: rows of these calls that belonged to jobs of the same owner.
        pauses: how often it waited, started, while another job of the same owner was served.
        joined: whether any of its calls was shared.
        peak_bytes: most device memory that was in use while it was served; None where nothing is measured.
        failed_plans: names of plans with which its calls ran out of memory.
        denoise_seconds: worker time of its calls of the denoiser and of ControlNets.
        load_seconds: worker time in which its model was loaded and placed.
        image_rows: rows of each of its images in a call; 0 before the first.
        call_images: images like its own that its calls had, those of other owners included; summed over its calls.
        flops: floating-point operations of its own rows so far; None once something was computed whose operations
            are not known.
    """

    calls: int = 0
    own_rows: int = 0
    pauses: int = 0
    joined: bool = False
    peak_bytes: int | None = None
    failed_plans: list[str] = field(default_factory=list)
    denoise_seconds: float = 0.0
    load_seconds: float = 0.0
    image_rows: float = 0.0
    call_images: float = 0.0
    flops: float | None = 0.0

    def note_flops(self, flops: float | None) -> None:
        """Add the operations of a call; None: they are not known."""
        self.flops = None if flops is None or self.flops is None else self.flops + flops

    @property
    def measured(self) -> Measured:
        """What later jobs' costs are predicted from."""
        if not self.calls:
            return Measured(self.denoise_seconds, self.load_seconds)
        return Measured(self.denoise_seconds, self.load_seconds, self.call_images / self.calls, self.image_rows)

    @property
    def mean_rows(self) -> float:
        """Mean rows of the denoiser's calls, without those of other owners' jobs."""
        return round(self.own_rows / self.calls, 2) if self.calls else 0.0


@dataclass(eq=False)
class JobInFlight:
    """A job whose coroutine has started.

    Attributes:
        coroutine: its work.
        stop_reason: returns what is thrown into the coroutine when the job must not go on; None: go on.
        placed: None until its model is loaded.
        adapters: that act on its rows.
        steps, steps_done: of its denoising; `steps` is 0 until its pipeline knows them.
        kept_bytes: device memory that it keeps between its calls: latents and embeddings.
        stage: parameters of the stage that it is in; those of the job where that has one only.
        last_served: number of the engine's call in which it was served last; 0 before the first.
        step_used_seconds: what its coroutine had used after its last step.
        turn_seconds: of the slices so far of a turn that has not ended.
    """

    job: Job
    coroutine: Coroutine
    stop_reason: Callable[[], BaseException | None]
    placed: Placed | None = None
    adapters: AdapterSet = field(default_factory=AdapterSet)
    steps: int = 0
    steps_done: int = 0
    kept_bytes: int = 0
    last_served: int = 0
    step_used_seconds: float | None = None
    turn_seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)
    _stage: JobParameters | None = field(init=False)

    def __post_init__(self) -> None:
        self._stage = self.job.generation

    @property
    def stage(self) -> JobParameters:
        """What its pipeline is called with now.

        Raises:
            TypeError: it runs on no model of the pool.
        """
        if self._stage is None:
            raise TypeError(f"job {self.job.id} runs on no model of the pool")
        return self._stage

    @stage.setter
    def stage(self, parameters: JobParameters) -> None:
        self._stage = parameters

    @property
    def model_id(self) -> str:
        """Id of the row that it runs on now."""
        return (self.job.parameters if self._stage is None else self._stage).model

    @property
    def generation(self) -> JobParameters:
        """What its pipeline of the pool is called with.

        Raises:
            TypeError: it runs on no model of the pool.
        """
        if self.job.generation is None:
            raise TypeError(f"job {self.job.id} runs on no model of the pool")
        return self.job.generation

    @property
    def result(self) -> Any:
        """What the work returned."""
        return self.coroutine.result

    @property
    def flops(self) -> float | None:
        """Floating-point operations so far; None where not all are known, or it runs on no model of the pool."""
        return None if self.job.generation is None else self.usage.flops

    @property
    def steps_left(self) -> int:
        """Remaining steps; those that the request asks for until the pipeline has computed its own."""
        return (self.steps or self.job.parameters.expected_steps) - self.steps_done

    @property
    def step_kind(self) -> tuple[object, ...]:
        """What the seconds of one of its steps are learned for."""
        parameters: TaskParameters = self.job.parameters if self._stage is None else self._stage
        return parameters.step_kind
