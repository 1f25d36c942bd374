"""Generates the images of one job, or of several that share a pipeline call; reads from the top as the algorithm.

Knows no queue and no HTTP: the caller claims the jobs, and watches them through a `Watch`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from contracts.errors import FailureCode, JobFailed, Unavailable
from contracts.queue.records import JobError, Receipt
from contracts.requests.parameters import JobParameters, combine
from contracts.storage import Storage
from worker.adapters.cache import AdapterSet
from worker.checkpoints.places import NotPrepared
from worker.encoding.encoder import PromptEncoder
from worker.families import GenerationInputs
from worker.generation import inpainting, receipts
from worker.generation.callback import StageTimer, StepCallback, Watch
from worker.generation.inputs import read_inputs
from worker.generation.outputs import JobResult
from worker.pool.model import LoadedModel
from worker.pool.pool import Pool
from worker.runtime.device import free_memory
from worker.runtime.out_of_memory import is_out_of_memory, raise_if_device_failed
from worker.sampling.previews import DenoisedEstimate, PreviewEmitter, PreviewRequest
from worker.sampling.step_cache import step_cache

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One job of a pipeline call; its receipt counts the jobs of the same owner only."""

    id: str
    parameters: JobParameters
    queue_seconds: float
    owner: str = ""


def generate(
    jobs: Sequence[Job], pool: Pool, storage: Storage, watch: Watch, worker_name: str = ""
) -> list[JobResult]:
    """Generate the images of jobs that share a pipeline call; if memory runs out, once more with a smaller plan.

    Returns:
        The result of each job, in order: `generated` or `failed`.

    Raises:
        DeviceFailed: the device no longer works in this process.
        Unavailable: the storage does not answer.
        NotPrepared: files that the jobs need must be downloaded first.
        BaseException: what `watch.step` raises.
    """
    merged = combine([job.parameters for job in jobs])
    failed_plans: list[str] = []
    while True:
        callback = StepCallback(watch, StageTimer(pool.device))
        try:
            return _generate_once(jobs, merged, pool, storage, callback, worker_name, failed_plans)
        except Exception as error:
            if error is callback.raised or isinstance(error, Unavailable | NotPrepared):
                raise
            _log.exception("jobs %s failed", [job.id for job in jobs])
            raise_if_device_failed(error, pool.device)
            failure = _error_for_client(error)
        # Outside `except`, the error is gone, and with it the tensors that its traceback referred to.
        free_memory()
        if failure.code is not FailureCode.OUT_OF_MEMORY:
            break
        failed_plan = pool.step_down(merged, merged.num_images)
        if failed_plan is None or failed_plans:
            break
        failed_plans.append(failed_plan)
    return [JobResult("failed", error=failure)] * len(jobs)


def _generate_once(
    jobs: Sequence[Job],
    merged: JobParameters,
    pool: Pool,
    storage: Storage,
    callback: StepCallback,
    worker_name: str,
    failed_plans: Sequence[str],
) -> list[JobResult]:
    """Make one attempt. `merged` is what the jobs need together; `failed_plans` ran out of memory before."""
    timer = callback.timer
    # The model, placed by its memory plan.
    model = pool.ready(merged, merged.num_images)
    callback.end_stage("load")

    # Each job's adapters. A job whose adapters cannot be used fails alone.
    adapters, failures = _load_adapters(jobs, model)
    timer.end_stage("load_adapters")
    if not adapters:
        return [failures[job.id] for job in jobs]

    # Input images, cropped around the mask if the job wants that.
    ready = [job for job in jobs if job.id in adapters]
    shared = ready[0].parameters
    pipeline = model.pipeline(shared.mode, shared.scheduler, [control.controlnet for control in shared.controls])
    inputs = read_inputs([job.parameters for job in ready], storage)
    crop = inpainting.find_crop(inputs.mask, shared.padding_mask_crop)
    callback.end_stage("read_inputs")

    image_adapters = [adapters[job.id] for job in ready for _ in job.parameters.seeds]
    try:
        with model.active(image_adapters) as encoder, pool.memory_tracker.running(pool.resident_bytes):
            timer.end_stage("load_adapters")
            # Prompts to embeddings.
            encoder.owners = [job.owner for job in ready for _ in job.parameters.seeds]
            embeddings = encoder.encode(inputs)
            pool.count_look_ups(model, encoder)
            model.placement.end_stage()
            callback.end_stage("encode_prompt")
            # Noise to latents to images.
            cropped = inpainting.crop_inputs(inputs, crop)
            generated = _denoise_and_decode(pipeline, model, cropped, embeddings, ready, callback)
    finally:
        # An aborted call would leave its hooks behind.
        pipeline.maybe_free_model_hooks()
        if model.adapters.is_active:
            pool.drop(shared.model)

    # Outside the mask the result is the input image, pixel for pixel.
    images = inpainting.restore(generated, inputs, crop)
    timer.end_stage("decode")

    receipt = receipts.make_receipt(
        [job.parameters for job in ready],
        model,
        embeddings=encoder.cache_use,
        memory=pool.memory_of(model, failed_plans),
        predicted_calls=callback.predicted_calls,
        worker=worker_name,
    )
    counts = {job.id: _own_counts(job, ready, encoder, pool) for job in ready}
    results = failures | _results(ready, images, receipt, adapters, callback, counts)
    return [results[job.id] for job in jobs]


def _load_adapters(jobs: Sequence[Job], model: LoadedModel) -> tuple[dict[str, AdapterSet], dict[str, JobResult]]:
    """Return the adapters of each job by id, and a failure for each job whose adapters cannot be used."""
    adapters: dict[str, AdapterSet] = {}
    failures: dict[str, JobResult] = {}
    for job in jobs:
        try:
            adapters[job.id] = model.adapters.load(job.parameters.loras, keep=adapters.values())
        except Exception as error:
            if is_out_of_memory(error) or isinstance(error, Unavailable | NotPrepared):
                # For all jobs of the call: they run again, with a smaller plan, or once storage or file are there.
                raise
            _log.exception("job %s failed", job.id)
            raise_if_device_failed(error, model.device)
            failures[job.id] = JobResult("failed", error=_error_for_client(error))
    return adapters, failures


def _denoise_and_decode(
    pipeline: Any,
    model: LoadedModel,
    inputs: GenerationInputs,
    embeddings: Mapping[str, torch.Tensor],
    jobs: Sequence[Job],
    callback: StepCallback,
) -> list[Image.Image]:
    """Call the pipeline: one image per seed, with previews and the step cache as the jobs want them."""
    seeds = [seed for job in jobs for seed in job.parameters.seeds]
    # Nothing should draw from the global generator; where a library does, it draws the same every time.
    torch.manual_seed(seeds[0])
    denoiser, controlnet = getattr(pipeline, model.family.denoiser), getattr(pipeline, "controlnet", None)
    emitter = _preview_emitter(pipeline, model, jobs, callback.watch)
    schedule = model.spec.family_spec.step_cache
    fast = jobs[0].parameters.speed == "fast"
    with (
        step_cache(schedule, denoiser, controlnet) if fast else nullcontext() as cache,
        callback.listening(denoiser, controlnet, emitter, cache),
        torch.inference_mode(),
    ):
        result = pipeline(
            **model.family.arguments(inputs),
            **embeddings,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            num_images_per_prompt=1,
            output_type="pt",
            callback_on_step_end=callback,
        )
        return [to_pil(image) for image in result.images]


def to_pil(image: torch.Tensor) -> Image.Image:
    """Round an image (3, height, width) of 0…1 as `VaeImageProcessor` does, but on its device.

    A quarter of the bytes cross to the host, and the host converts nothing.
    """
    pixels = image.float().mul(255).round_().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def _preview_emitter(
    pipeline: Any, model: LoadedModel, jobs: Sequence[Job], watch: Watch
) -> PreviewEmitter | None:
    """Return what makes the jobs' previews; None if no job wants any."""
    requests = [
        PreviewRequest(job.id, job.parameters.previews, indexes)
        for job, indexes in zip(jobs, _image_indexes(jobs), strict=True)
    ]
    if not any(request.count for request in requests):
        return None
    size = (jobs[0].parameters.width, jobs[0].parameters.height)
    return PreviewEmitter(
        requests,
        DenoisedEstimate(pipeline.scheduler, model.spec.family_spec.kind),
        model.projection,
        unpack=lambda latents: model.family.unpack_latents(pipeline, latents, size),
        size=size,
        emit=watch.preview,
    )


def _image_indexes(jobs: Sequence[Job]) -> list[range]:
    """Return which of the call's images are each job's."""
    indexes, start = [], 0
    for job in jobs:
        indexes.append(range(start, start + job.parameters.num_images))
        start = indexes[-1].stop
    return indexes


def _results(
    jobs: Sequence[Job],
    images: Sequence[Image.Image],
    shared: Receipt,
    adapters: Mapping[str, AdapterSet],
    callback: StepCallback,
    counts: Mapping[str, Mapping[str, object]],
) -> dict[str, JobResult]:
    """Return the images of each job by its id, with its own receipt made from the call's."""
    results = {}
    non_finite = callback.non_finite_images
    for job, indexes in zip(jobs, _image_indexes(jobs), strict=True):
        if non_finite.intersection(indexes):
            message = (
                "the model's output contains NaN or infinite values; if the job uses LoRAs, try smaller scales"
            )
            results[job.id] = JobResult.failed(FailureCode.INTERNAL, message)
            continue
        own = {
            "parameters": job.parameters,
            "seeds": job.parameters.seeds,
            "loras": adapters[job.id].weights,
            "timings": {"queue": round(job.queue_seconds, 4), **callback.timer.seconds},
            **counts[job.id],
        }
        receipt = shared.model_copy(update=own)
        results[job.id] = JobResult("generated", images=[images[index] for index in indexes], receipt=receipt)
    return results


def _own_counts(job: Job, jobs: Sequence[Job], encoder: PromptEncoder, pool: Pool) -> dict[str, object]:
    """Return what a job's receipt counts: the jobs of its owner, as if nobody else used this worker."""
    own, look_ups = [other for other in jobs if other.owner == job.owner], encoder.cache_use_of(job.owner)
    ahead = encoder.cache_use.ahead if pool.was_read_ahead(job.parameters, job.owner) else 0
    return {
        "mean_rows": float(sum(other.parameters.num_images for other in own)),
        "joined": len(jobs) > 1,
        "embeddings": look_ups.model_copy(update={"ahead": min(ahead, look_ups.misses)}),
    }


def _error_for_client(error: Exception) -> JobError:
    """Return what the client may read; the traceback is in the log."""
    if isinstance(error, JobFailed):
        return JobError.of(error.code, error.message)
    if is_out_of_memory(error):
        message = "the worker's memory is too small for this job; try a smaller size or fewer images"
        return JobError.of(FailureCode.OUT_OF_MEMORY, message)
    message = f"the worker failed unexpectedly ({type(error).__name__}); its log has the details"
    return JobError.of(FailureCode.INTERNAL, message)
