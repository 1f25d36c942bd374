"""What the device is set up for: the model and the memory plan of the job that is being served.

Before a call it places the job's model by the job's plan and hooks its components, unless that is so already.
Around a denoiser's call it lets each job's adapters act on the job's rows. Does not know the order of calls.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch

from contracts.memory.plan import Placement
from contracts.memory.seconds import move_seconds
from contracts.memory.sizes.component import Role
from contracts.requests.parameters import JobParameters
from worker.adapters.cache import AdapterSet
from worker.adapters.references.attention_hooks import RowSpan
from worker.engine.coroutine import Turn, current_coroutine
from worker.engine.job import JobInFlight, Placed
from worker.engine.kept_memory import KeptMemory
from worker.pool.loading.loader import Meanwhile
from worker.pool.model import LoadedModel
from worker.pool.pool import Pool

#: Roles of the components that each step needs.
_DENOISING = frozenset({Role.DENOISER, Role.CONTROLNET})
#: What a job waits for before it is placed, and while its model is loaded between the calls of others.
LOAD = Turn("load")


class Residency:
    """Keeper of the device, which it sets up for one job after another. For the jobs' thread.

    Attributes:
        memory: what jobs keep on the device between their calls.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._turn: tuple[object, ...] | None = None
        #: Device bytes for which room was made, beside other models.
        self._room_bytes = 0
        self._model: LoadedModel | None = None
        self._hooks = ExitStack()
        self._jobs: list[JobInFlight] = []
        self.memory = KeptMemory(pool, self._jobs, self._moving)
        #: Job id -> whether it must wait, as long as no model moves and no job ends.
        self._waits: dict[str, bool] = {}
        #: The job whose model is being loaded while others are served.
        self._loading: JobInFlight | None = None

    def add(self, job: JobInFlight) -> None:
        """A job is in flight from now on."""
        self._jobs.append(job)

    def remove(self, job: JobInFlight) -> None:
        """A job has ended: it no longer uses its model, and its adapters may be evicted."""
        self._jobs.remove(job)
        self._let_go(job)

    def begin_stage(self, job: JobInFlight, stage: JobParameters) -> None:
        """A job goes on with another model: the one that it had may leave the device, and its adapters too."""
        job.stage, job.adapters, job.step_used_seconds = stage, AdapterSet(), None
        self._let_go(job)

    def _let_go(self, job: JobInFlight) -> None:
        """A job needs its model no more, nor what it has kept on the device."""
        self._waits.clear()
        self.memory.keep(job, 0)
        if job.placed is not None:
            model, job.placed = job.placed.model, None
            self._pool.release(model.spec.id)
            model.adapters.evict(keep=self.adapter_sets(model))
            using = (other.stage for other in self._jobs if other.placed is not None or other is self._loading)
            model.drop_uploaded([control for stage in using for control in stage.controls])

    def turn_of(self, job: JobInFlight) -> Hashable:
        """What the device must be set up for to serve a job; without a plan yet: its model, as it is now."""
        if job.placed is not None:
            return job.placed.turn
        if job.job.generation is None or job is self._loading:  # it runs beside whatever model is there
            return self._turn
        wanted = job.stage.model
        return self._turn if self._model is not None and self._model.spec.id == wanted else wanted

    def move_seconds(self, turn: Hashable) -> float:
        """Predicted seconds to set the device up for a turn: weights on demand, and those that left the device."""
        placed = next(
            (job.placed for job in self._jobs if job.placed is not None and job.placed.turn == turn), None
        )
        if placed is None or turn == self._turn:
            return 0.0
        comes = sum(
            part.bytes
            for part in placed.plan.components
            if part.role in _DENOISING
            and (
                part.placement is Placement.ON_DEMAND
                or (part.placement is Placement.DEVICE and placed.model.on_host)
            )
        )
        return move_seconds(comes)

    def must_wait(self, job: JobInFlight) -> bool:
        """Whether a job that has no model yet would take the weights of jobs in flight away from them."""
        generation = job.job.generation
        if job.placed is not None or generation is None or job is self._loading:
            return False
        if job.job.id not in self._waits:
            self._waits[job.job.id] = self._pool.must_wait(job.stage)
        return self._waits[job.job.id]

    def is_loading(self, job: JobInFlight) -> bool:
        """Whether this job's model is being loaded, and it waits for its next slice."""
        return job is self._loading

    def waits_for_load(self, job: JobInFlight) -> bool:
        """Whether a job can be placed only once another one's model is loaded: they are loaded one by one."""
        if self._loading is None or job is self._loading or job.coroutine.wait != LOAD:
            return False
        return self._pool.needs_loading(job.stage)

    def place(self, job: JobInFlight) -> LoadedModel:
        """Load and place the model of a job that begins, or that ran out of memory and begins again.

        In the job's coroutine, others are served between the slices of what is loaded.

        Raises:
            JobFailed, NotPrepared, torch.OutOfMemoryError: as `Pool.ready`.
            BaseException: what is thrown into the coroutine meanwhile.
        """
        parameters = job.stage
        with self._loaded_meanwhile(job) as meanwhile, self._moving():
            if job.placed is not None:
                self._pool.release(parameters.model)
                job.placed = None
            model = self._pool.ready(parameters, parameters.num_images, meanwhile)
            plan = model.placement.plan
            if plan is None:
                raise RuntimeError(f"{parameters.model} was placed without a plan")
            job.placed = Placed(model, plan)
            self._pool.hold(parameters.model)
        self.leave()  # those that were served last
        self._hook(job)
        return model

    @contextmanager
    def _loaded_meanwhile(self, job: JobInFlight) -> Iterator[Meanwhile | None]:
        """How others are served while this job's model is loaded; None outside of its coroutine.

        None, too, while another job's is loaded: one that must load something waits (`waits_for_load`), and the
        others are placed at once.
        """
        if self._loading is not None or current_coroutine() is not job.coroutine:
            yield None
            return
        self._loading = job
        try:
            yield Meanwhile(partial(self._serve_others, job), self.leave)
        finally:
            self._loading = None
            self._waits.clear()

    def _serve_others(self, job: JobInFlight) -> None:
        """Have others served, as they are served at any time, until it is this job's turn again."""
        tracker = self._pool.memory_tracker
        tracker.resume()
        tracker.set_resident(self._pool.resident_bytes)
        try:
            with torch.inference_mode():
                job.coroutine.take_turn(LOAD.stage)
        finally:
            tracker.pause()

    def enter(self, job: JobInFlight) -> None:
        """Set the device up for a job that has been placed before.

        Raises:
            JobFailed, torch.OutOfMemoryError: its weights cannot be brought back.
        """
        placed = job.placed
        if placed is None or (self._turn == placed.turn and placed.plan.peak_bytes <= self._room_bytes):
            return
        with self._moving():
            self._pool.place_again(job.stage.model, placed.plan)
        self._hook(job)

    def leave(self) -> None:
        """Remove all hooks, and discard the weights that are on demand."""
        self._turn, hooks, self._hooks = None, self._hooks, ExitStack()
        if self._model is not None:
            self._model.adapters.rest()
            self._model = None
        hooks.close()

    def step_down(self, job: JobInFlight) -> bool:
        """After memory ran out: whether `place` gives the job a smaller plan now, as it does once for each job."""
        parameters = job.stage
        failed = self._pool.step_down(parameters, parameters.num_images)
        if failed is None or job.usage.failed_plans:
            return False
        job.usage.failed_plans.append(failed)
        return True

    def adapter_sets(self, model: LoadedModel) -> list[AdapterSet]:
        """The adapters of the jobs in flight of a model."""
        return [job.adapters for job in self._jobs if job.placed is not None and job.placed.model is model]

    @contextmanager
    def computing(self, module: torch.nn.Module, parts: Sequence[tuple[JobInFlight, RowSpan]]) -> Iterator[None]:
        """Around a call: where it runs the denoiser's layers, each job's adapters act on its rows.

        Args:
            parts: the jobs in the order of their rows, and which rows of its own call each has.
        """
        model = self._model
        if model is None or not model.runs_denoiser_layers(module):
            yield
            return
        has_slots = any(job.placed is not None and job.placed.plan.has_lora_slots for job, _ in parts)
        own = [(job.adapters, span.count) for job, span in parts]
        model.adapters.act(own, [span for _, span in parts], "" if has_slots else "no slots in the plan")
        with model.compiled(_graph_bytes(parts)):
            yield

    def is_denoiser(self, module: torch.nn.Module) -> bool:
        """Whether a module is the denoiser of the model that the device is set up for."""
        return self._model is not None and module is self._model.denoiser

    def end_stage(self) -> None:
        """Discard the weights that were on demand for the stage that has just ended."""
        if self._model is not None:
            self._model.placement.end_stage()

    def _hook(self, job: JobInFlight) -> None:
        if job.placed is None:
            raise RuntimeError(f"job {job.job.id} has no model yet")
        self._model = job.placed.model
        self._hooks.enter_context(self._model.placement.hooked())
        self._turn, self._room_bytes = job.placed.turn, job.placed.plan.peak_bytes

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Weights move inside: without hooks, and as ordinary tensors, which outlive inference mode."""
        self.leave()
        self._waits.clear()
        tracker = self._pool.memory_tracker
        tracker.pause()
        try:
            with torch.inference_mode(mode=False), torch.no_grad():
                yield
        finally:
            tracker.resume()
            tracker.set_resident(self._pool.resident_bytes)


def _graph_bytes(parts: Sequence[tuple[JobInFlight, RowSpan]]) -> int | None:
    """Activations of a joined call by its jobs' plans; None where one of them has no room to keep them."""
    total = 0
    for job, span in parts:
        planned = None if job.placed is None else job.placed.plan.graph_bytes
        if planned is None:
            return None
        total += planned * span.count // (span.whole or span.count)
    return total
