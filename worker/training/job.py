"""A training as a job: prepares its examples, makes one step after another, and gives the device back in between.

Each step is a turn of the engine, in a tier below all images. Where images need room that the training takes, it
writes a checkpoint and goes back to the queue. Knows no claims: the caller watches the job.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from PIL import Image

from contracts.errors import Unavailable
from contracts.jobs.events import Preview
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.receipt import Receipt, TrainedAdapter, TrainingReceipt
from contracts.jobs.records import JobError, Measured
from contracts.memory.training import activation_bytes
from contracts.requests.training.parameters import TrainedParameters, TrainingParameters
from contracts.requests.training.settings import Kind
from contracts.storage import Storage
from worker.checkpoints.places import NotPrepared
from worker.engine.engine import Engine
from worker.engine.job import JobInFlight, Placed
from worker.generation.results.outputs import JobResult
from worker.generation.results.receipts import library_versions
from worker.generation.steps.listener import StageTimer
from worker.pool.model import LoadedModel
from worker.pool.pool import Pool
from worker.runtime.device import describe_device, free_memory
from worker.runtime.out_of_memory import is_out_of_memory, raise_if_device_failed
from worker.sampling.previews import preview_of
from worker.training.checkpoints import CheckpointHolder, Checkpoints
from worker.training.images import TrainingImages
from worker.training.preparation import Preparation, require_room
from worker.training.run import TrainingRun

_log = logging.getLogger(__name__)

#: Losses of so many of the last steps are on the receipt: one alone says little.
_LOSS_STEPS = 20
#: What is trained -> where its receipt lists it.
_MADE: Mapping[Kind, str] = {
    "lora": "loras",
    "textual_inversion": "textual_inversions",
    "controlnet": "controlnets",
}


class GivesWay(BaseException):
    """Exception for a training that goes back to the queue, since images need its memory."""


class TrainingWatch(CheckpointHolder, Protocol):
    """Observer of a training, which holds its checkpoints."""

    @property
    def verdict(self) -> object | None:
        """Why the job does not go on; None where it may go on elsewhere."""

    def train_step(self, step: int, steps: int, loss: float | None) -> None:
        """Called after each step, counted from 1; without a loss where a training goes on from a checkpoint."""

    def preview(self, preview: Preview) -> None:
        """Called for each sample image."""


#: Registers a file under a name for the job's owner: (name, file) -> what an image job names it by.
Register = Callable[[str, bytes], TrainedParameters]


class TrainingJob:
    """The training of one job, for the engine's coroutine of this job: nothing happens before `run`."""

    def __init__(
        self,
        flight: JobInFlight,
        training: TrainingParameters,
        engine: Engine,
        pool: Pool,
        storage: Storage,
        watch: TrainingWatch,
        register: Register,
        checkpoints: Checkpoints,
        worker_name: str = "",
        on_stage: Callable[[str, float], object] | None = None,
        may_show: Callable[[Image.Image], bool] | None = None,
    ) -> None:
        """Build it.

        Args:
            on_stage: told each stage and its seconds at its end.
            may_show: asked of each sample before the last ones; None: all may be shown.
        """
        self._flight, self._training, self._engine, self._pool = flight, training, engine, pool
        self._storage, self._watch, self._register = storage, watch, register
        self._worker_name, self._may_show = worker_name, may_show
        self._timer = StageTimer(pool.device, on_stage)
        self._images = TrainingImages(flight, training, engine, pool, storage)
        self._checkpoints = checkpoints
        self._losses: list[float] = []
        self._trained: list[TrainedAdapter] = []

    def run(self) -> JobResult:
        """Train, from the last checkpoint on if there is one.

        Returns:
            A `generated` result with the last sample images, `failed`, or `released`.

        Raises:
            DeviceFailed: the device no longer works in this process.
            Unavailable: the storage does not answer while an input is read.
            NotPrepared: files that the job needs must be downloaded first.
            BaseException: what is thrown into the coroutine.
        """
        job = self._flight.job
        # The device is set up as for one of the images that it makes meanwhile.
        self._flight.job = replace(job, parameters=self._training.sample)
        self._flight.stage = self._training.sample
        try:
            return self._train()
        except GivesWay:
            return JobResult("released")
        except Exception as error:
            if isinstance(error, Unavailable | NotPrepared):
                raise
            _log.exception("training %s failed", self._flight.job.id)
            raise_if_device_failed(error, self._pool.device)
            failure = _error_for_client(error)
        finally:
            self._flight.job = job
            self._checkpoints.close()
        free_memory()
        return JobResult("failed", error=failure)

    def _train(self) -> JobResult:
        flight, training = self._flight, self._training
        flight.steps = training.settings.steps
        prior = [self._class_image(number) for number in range(training.class_images)]
        self._timer.end_stage("class_images")
        model = self._place()
        self._timer.end_stage("load")
        flight.coroutine.take_turn("encode_prompt")
        preparation = Preparation(model, training, flight.job.owner)
        examples = preparation.read_examples(self._storage, prior)
        self._engine.residency.end_stage()
        run = preparation.begin(examples)
        self._engine.residency.memory.keep(flight, run.state_bytes)
        self._timer.end_stage("encode_inputs")
        images: list[Image.Image] = []
        with self._saved_when_interrupted(run):
            self._restore(run)
            while not run.is_done:
                self._take_step(run)
                if run.is_done or run.step % training.snapshot_every_steps == 0:
                    images = self._snapshot(run, model)
                elif run.step % training.checkpoint_every_steps == 0:
                    self._write_checkpoint(run)
            if not images:  # it was interrupted after its last step
                images = self._snapshot(run, model)
        self._timer.end_stage("train")
        return JobResult("generated", images=images, receipt=self._receipt(model), measured=_measured(flight))

    # -- before the first step ------------------------------------------------------------------------

    def _class_image(self, number: int) -> Image.Image:
        """The image of the class with this number, made once for all attempts."""
        image = self._images.find_class_image(number)
        if image is None:
            self._give_way_if_needed()
            image = self._images.make_class_image(number)
        return image

    def _place(self) -> LoadedModel:
        """Load the model, with room on the device for a step."""
        flight = self._flight
        flight.coroutine.take_turn("load")
        model = self._engine.residency.place(flight)
        placed = flight.placed
        if placed is None:
            raise RuntimeError("the model was placed without a plan")
        require_room(placed.plan, self._training)
        step_bytes = activation_bytes(placed.plan, self._training)
        # The engine makes room for this plan before each step, and counts it as the same set-up of the device.
        plan = placed.plan.model_copy(update={"peak_bytes": placed.plan.peak_bytes + step_bytes})
        flight.placed = Placed(placed.model, plan)
        return model

    def _restore(self, run: TrainingRun) -> None:
        restored = self._checkpoints.restore(run, self._training.resumed)
        if restored is None:
            return
        notes = TrainingReceipt.model_validate_json(restored.notes)
        if restored.is_own:
            self._trained = [*notes.loras, *notes.textual_inversions, *notes.controlnets]
        self._losses = list(notes.losses)
        self._flight.steps_done = run.step
        self._watch.train_step(run.step, self._training.settings.steps, None)

    # -- steps ----------------------------------------------------------------------------------------

    def _take_step(self, run: TrainingRun) -> None:
        flight = self._flight
        self._give_way_if_needed()
        flight.coroutine.take_turn("train")
        if flight.placed is not None:
            flight.placed.model.adapters.rest()
        try:
            loss = run.learn()
        except Exception as error:
            if is_out_of_memory(error) and len(self._engine.jobs) > 1:
                _log.warning("training %s goes back to the queue: no memory beside other jobs", flight.job.id)
                raise GivesWay from None
            raise
        self._losses = [*self._losses, loss][-_LOSS_STEPS:]
        flight.steps_done = run.step
        flight.usage.calls += 1
        self._watch.train_step(run.step, self._training.settings.steps, loss)

    def _give_way_if_needed(self) -> None:
        """Go back to the queue where images wait for room that the training takes."""
        if self._engine.has_blocked_jobs:
            _log.info("training %s goes back to the queue: images need its memory", self._flight.job.id)
            raise GivesWay

    @contextmanager
    def _saved_when_interrupted(self, run: TrainingRun) -> Iterator[None]:
        """Write a checkpoint where the training is ended: it goes on elsewhere, or a later one resumes it."""
        try:
            yield
        except Exception:
            raise
        except BaseException:
            if run.step and self._watch.verdict != "lost":
                self._write_checkpoint(run)
            raise

    def _write_checkpoint(self, run: TrainingRun) -> None:
        self._checkpoints.write(run, self._notes().model_dump_json(), self._training.settings.steps)

    def _snapshot(self, run: TrainingRun, model: LoadedModel) -> list[Image.Image]:
        """Register what is trained as it is now, and show what it makes."""
        training = self._training
        name = training.name if run.is_done else f"{training.name}-step{run.step}"
        made = self._register(name, run.result(training.facts(model.weights.sha256, run.step)))
        trained = TrainedAdapter(id=made.name, sha256=made.sha256 or "", step=run.step)
        self._trained = [*(one for one in self._trained if one.step != run.step), trained]
        self._write_checkpoint(run)
        images = []
        for index, _ in enumerate(training.sample_prompts):
            images.append(self._images.make(training.sample_parameters(index, made)))
            if self._may_show is None or self._may_show(images[-1]):
                self._watch.preview(preview_of(images[-1], index, run.step, training.settings.steps))
        if not run.is_done:
            self._place()
        return images

    # -- after the last step --------------------------------------------------------------------------

    def _notes(self) -> TrainingReceipt:
        return TrainingReceipt(**{_MADE[self._training.settings.kind]: self._trained}, losses=self._losses)

    def _receipt(self, model: LoadedModel) -> Receipt:
        training = self._training
        return Receipt(
            parameters=training,
            seeds=training.seeds,
            model=model.weights,
            placement=model.locations(),
            device=describe_device(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            versions=dict(library_versions()),
            timings={"queue": round(self._flight.job.queue_seconds, 4), **self._timer.seconds},
            worker=self._worker_name,
            training=self._notes(),
        )


def _measured(flight: JobInFlight) -> Measured:
    return Measured(flight.coroutine.used_seconds, flight.usage.load_seconds)


def _error_for_client(error: Exception) -> JobError:
    if isinstance(error, JobFailed):
        return JobError.of(error.code, error.message)
    if is_out_of_memory(error):
        message = (
            "the worker's memory is too small for this training; try a smaller resolution, batch_size or rank"
        )
        return JobError.of(FailureCode.OUT_OF_MEMORY, message)
    if isinstance(error, FloatingPointError):
        return JobError.of(FailureCode.INTERNAL, str(error))
    message = f"the worker failed unexpectedly ({type(error).__name__}); its log has the details"
    return JobError.of(FailureCode.INTERNAL, message)
