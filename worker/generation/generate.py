"""Paints one batch, from storage keys to pictures; read it from the top like the algorithm.

Knows no queue: who claimed the jobs, and who watches them, is the caller's matter.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from contracts.errors import FailureCode, JobFailed, NotFound
from contracts.queue.records import JobError, Receipt
from contracts.requests.parameters import JobParameters, combine
from contracts.storage import Storage
from worker.adapters.cache import AdapterSet
from worker.families import GenerationInputs, prompts_per_image
from worker.generation import images, receipts
from worker.generation.callback import StageTimer, StepCallback, Watch
from worker.generation.outputs import JobResult
from worker.pool.model import LoadedModel
from worker.pool.pool import Pool
from worker.runtime.device import free_memory
from worker.sampling import previews
from worker.sampling.step_cache import StepCache, step_cache

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Attempt:
    """One try at a batch, and what it needs.

    Attributes:
        ran_out: plans that were too large for it before.
    """

    pool: Pool
    storage: Storage
    steps: StepCallback
    stopwatch: StageTimer
    worker_name: str
    ran_out: Sequence[str]


@dataclass(frozen=True)
class Job:
    """One job of a batch."""

    id: str
    parameters: JobParameters
    queue_seconds: float


def generate(
    jobs: Sequence[Job], pool: Pool, storage: Storage, watch: Watch, worker_name: str = ""
) -> list[JobResult]:
    """Run jobs that share a batch key in one pipeline call; once more, by a smaller plan, if memory runs out.

    Returns:
        The result of each job, in order: `generated` or `failed`. What `watch.step` raises is passed on.
    """
    ran_out: list[str] = []
    load = combine([job.parameters for job in jobs])
    while True:
        steps = StepCallback(watch)
        try:
            attempt = _Attempt(pool, storage, steps, StageTimer(pool.device), worker_name, ran_out)
            return _paint(jobs, load, attempt)
        except Exception as error:
            if error is steps.raised:
                raise
            _log.exception("jobs %s failed", [job.id for job in jobs])
            failure = _failure(error)
        # The error is gone by now, and with it the tensors that its traceback held.
        free_memory()
        if failure.code is not FailureCode.OUT_OF_MEMORY:
            break
        too_large = pool.step_down(load, load.num_images)
        if too_large is None or ran_out:
            break
        ran_out.append(too_large)
    return [JobResult("failed", error=failure)] * len(jobs)


def _failure(error: Exception) -> JobError:
    """What a client is told; the rest is in the log."""
    if isinstance(error, JobFailed):
        return JobError.of(error.code, error.message)
    # The CPU's allocator has no class of its own for it.
    starved = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    if starved or isinstance(error, torch.OutOfMemoryError | MemoryError):
        return JobError.of(FailureCode.OUT_OF_MEMORY, "the worker's memory is too small for this job")
    return JobError.of(FailureCode.INTERNAL, f"the worker failed: {type(error).__name__}")


def _paint(jobs: Sequence[Job], load: JobParameters, attempt: _Attempt) -> list[JobResult]:
    """Paint those jobs whose adapters can be had; `load` is what all of them take together."""
    model = attempt.pool.ready(load, load.num_images)
    attempt.stopwatch.lap("load")
    adapters, failures = _load_adapters(jobs, model)
    attempt.stopwatch.lap("load_adapters")
    able = [job for job in jobs if job.id in adapters]
    painted = iter(_paint_able(able, adapters, model, attempt) if able else ())
    return [failures[job.id] if job.id in failures else next(painted) for job in jobs]


def _load_adapters(jobs: Sequence[Job], model: LoadedModel) -> tuple[dict[str, AdapterSet], dict[str, JobResult]]:
    """Load each job's adapters; one that cannot be used fails its own job only."""
    adapters: dict[str, AdapterSet] = {}
    failures: dict[str, JobResult] = {}
    for job in jobs:
        try:
            adapters[job.id] = model.adapters.load(job.parameters.loras, keep=adapters.values())
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  # the other jobs of the call go on
            _log.exception("job %s failed", job.id)
            failures[job.id] = JobResult("failed", error=_failure(error))
    return adapters, failures


def _paint_able(
    jobs: Sequence[Job], adapters: Mapping[str, AdapterSet], model: LoadedModel, attempt: _Attempt
) -> list[JobResult]:
    """Paint jobs with their adapters, by job id."""
    shared, pool, stopwatch = jobs[0].parameters, attempt.pool, attempt.stopwatch
    pipeline = model.pipeline(shared.mode, shared.scheduler, [part.controlnet for part in shared.controls])
    call = _read_inputs(jobs, attempt.storage)
    frame = images.frame_around(call.mask, shared.padding_mask_crop)
    stopwatch.lap("read_inputs")
    sets = [adapters[job.id] for job in jobs for _ in job.parameters.seeds]
    try:
        with model.active(sets) as encoder, pool.memory_tracker.running(pool.resident_bytes):
            stopwatch.lap("load_adapters")
            embeddings = encoder.encode(call)
            pool.count_look_ups(model, encoder)
            model.placement.end_stage()
            stopwatch.lap("encode_prompt")
            painted = _generate(pipeline, model, _crop(call, frame), embeddings, jobs, attempt.steps, stopwatch)
    finally:
        # An aborted run leaves its caches behind otherwise.
        pipeline.maybe_free_model_hooks()
        if model.adapters.is_active:
            pool.drop(shared.model)
    pictures = _restore(painted, call, frame)
    stopwatch.lap("decode")
    receipt = receipts.compose(
        [job.parameters for job in jobs],
        model,
        embeddings=encoder.cache_use,
        memory=pool.memory_of(model, attempt.ran_out),
        predicted_calls=attempt.steps.predicted,
        worker=attempt.worker_name,
    )
    return [
        _finish(job, pictures, place, receipt, adapters[job.id], attempt)
        for job, place in zip(jobs, _places(jobs), strict=True)
    ]


def _read_inputs(jobs: Sequence[Job], storage: Storage) -> GenerationInputs:
    shared = jobs[0].parameters
    size = (shared.width, shared.height)
    try:
        return GenerationInputs(
            job=shared,
            prompts=prompts_per_image([job.parameters for job in jobs]),
            image=None if shared.image is None else images.read_image(storage.read(shared.image), size),
            mask=None if shared.mask_image is None else images.read_mask(storage.read(shared.mask_image), size),
            controls=[
                None if control.image is None else images.read_image(storage.read(control.image), size)
                for control in shared.controls
            ],
        )
    except NotFound as error:
        message = "an input image is no longer in the storage; upload it again"
        raise JobFailed(FailureCode.INPUT_MISSING, message) from error


def _generate(
    pipeline: Any,
    model: LoadedModel,
    call: GenerationInputs,
    embeddings: Mapping[str, torch.Tensor],
    jobs: Sequence[Job],
    steps: StepCallback,
    stopwatch: StageTimer,
) -> list[Image.Image]:
    seeds = [seed for job in jobs for seed in job.parameters.seeds]
    # Nothing should draw from the global generator; where a library does, it draws the same every time.
    torch.manual_seed(seeds[0])
    painter = _preview_painter(pipeline, model, jobs, steps.watch)
    parts = [getattr(pipeline, name, None) for name in ("controlnet", model.family.denoiser)]
    hooks = [part.register_forward_pre_hook(steps.denoising_begins) for part in parts if part is not None]
    try:
        with _shortened(model, parts[1], parts[0], jobs[0].parameters) as shortcut, torch.inference_mode():
            steps.begin(stopwatch, painter, shortcut)
            painted = pipeline(
                **model.family.arguments(call),
                **embeddings,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                num_images_per_prompt=1,
                output_type="pil",
                callback_on_step_end=steps,
            ).images
    finally:
        steps.end()
        for hook in hooks:
            hook.remove()
    return list(painted)


def _shortened(
    model: LoadedModel, denoiser: Any, controlnet: Any, job: JobParameters
) -> AbstractContextManager[StepCache | None]:
    """The pipeline call as the job's `speed` has it."""
    if job.speed == "exact":
        return nullcontext()
    return step_cache(model.spec.family_spec.step_cache, denoiser, controlnet)


def _preview_painter(
    pipeline: Any, model: LoadedModel, jobs: Sequence[Job], watch: Watch
) -> previews.PreviewEmitter | None:
    """What shows how the jobs' images come along; None where no job wants to see it."""
    wanted = [
        previews.Wanted(job.parameters.previews, range(place, place + job.parameters.num_images))
        for job, place in zip(jobs, _places(jobs), strict=True)
    ]
    if not any(one.count for one in wanted):
        return None
    size = (jobs[0].parameters.width, jobs[0].parameters.height)
    return previews.PreviewEmitter(
        wanted,
        previews.DenoisedEstimate(pipeline.scheduler, model.spec.family_spec.kind),
        model.projection,
        unpack=lambda latents: model.family.unpack_latents(pipeline, latents, size),
        size=size,
        show=lambda index, preview: watch.preview(jobs[index].id, preview),
    )


def _crop(call: GenerationInputs, frame: images.Box | None) -> GenerationInputs:
    """The call with every picture cut to the part around the mask, and that part as large as the output."""
    if frame is None:
        return call
    image, mask, *controls = (
        None if picture is None else images.enlarge(picture, frame)
        for picture in (call.image, call.mask, *call.controls)
    )
    return replace(call, image=image, mask=mask, controls=controls)


def _restore(painted: list[Image.Image], call: GenerationInputs, frame: images.Box | None) -> list[Image.Image]:
    """The final images: where a mask was given, what it leaves black is the client's, pixel for pixel."""
    image, mask = call.image, call.mask
    if image is None or mask is None:
        return painted
    if frame is not None:
        painted = [images.put_back(picture, image, frame) for picture in painted]
    soft = images.soften(mask, call.job.mask_blur or 0)
    return [Image.composite(picture.convert("RGB"), image, soft) for picture in painted]


def _places(jobs: Sequence[Job]) -> list[int]:
    """Where each job's images begin in the batch."""
    counts = [job.parameters.num_images for job in jobs]
    return [sum(counts[:index]) for index in range(len(counts))]


def _finish(
    job: Job,
    pictures: Sequence[Image.Image],
    place: int,
    shared: Receipt,
    adapters: AdapterSet,
    attempt: _Attempt,
) -> JobResult:
    """One job's part of the batch, which begins at `place`, under a receipt of its own."""
    own = range(place, place + job.parameters.num_images)
    if attempt.steps.spoilt.intersection(own):
        return JobResult.failed(FailureCode.INTERNAL, "the model's result holds values that are no numbers")
    changes = {
        "parameters": job.parameters,
        "seeds": job.parameters.seeds,
        "loras": adapters.weights,
        "timings": {"queue": round(job.queue_seconds, 4), **attempt.stopwatch.seconds},
    }
    images = [pictures[index] for index in own]
    return JobResult("generated", images=images, receipt=shared.model_copy(update=changes))
