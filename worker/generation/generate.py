"""Generates the images of one job, in its coroutine; reads from the top as the algorithm.

Other jobs are served while it waits for the device: at `take_turn`, and inside the pipeline wherever that calls a
view. Knows no queue and no HTTP: the caller claims the job, and watches it through a `Watch`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from contracts.errors import Unavailable
from contracts.jobs import receipt as job_receipt
from contracts.jobs.failures import FailureCode
from contracts.jobs.receipt import CacheUse, Receipt
from contracts.requests.entries import CASCADE_SCALE
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from worker.adapters.inversions import with_counts
from worker.adapters.references.redux import lengthen_prompt
from worker.checkpoints.places import NotPrepared
from worker.encoding.windows import token_counts
from worker.engine.engine import Engine
from worker.engine.job import JobInFlight
from worker.families.inputs import GenerationInputs
from worker.generation import inpainting
from worker.generation.control_maps import make_control_maps
from worker.generation.denoising import Denoising, to_pil
from worker.generation.hires import begin_second_pass, wants_latents
from worker.generation.inputs import read_inputs
from worker.generation.results import receipts
from worker.generation.results.outputs import JobResult, failure_of
from worker.generation.results.receipts import StageUse
from worker.generation.stages import Progress, kept_bytes
from worker.generation.steps.checked import StepMade
from worker.generation.steps.hashes import StepHashes
from worker.generation.steps.listener import StageTimer, Watch
from worker.pool.model import LoadedModel
from worker.pool.pool import Pool
from worker.runtime.device import free_memory
from worker.runtime.out_of_memory import raise_if_device_failed

_log = logging.getLogger(__name__)


class JobGeneration:
    """The generation of one job's images.

    Attributes:
        timer: of its stages.
    """

    def __init__(
        self,
        job: JobInFlight,
        engine: Engine,
        pool: Pool,
        storage: Storage,
        watch: Watch,
        worker_name: str = "",
        on_stage: Callable[[str, float], object] | None = None,
        *,
        hashes_steps: bool = False,
        may_show: Callable[[Image.Image], bool] | None = None,
    ) -> None:
        """For the engine's coroutine of this job: nothing happens before `run`.

        Args:
            on_stage: told each stage and its seconds at its end.
            hashes_steps: whether the latents of each step are hashed, for signed receipts.
            may_show: asked of each preview; None: all may be shown.
        """
        self.timer = StageTimer(pool.device, on_stage)
        self._flight, self._job, self._parameters = job, job.job, job.generation
        self._engine, self._pool, self._storage = engine, pool, storage
        self._worker_name = worker_name
        keeps, checks = self._parameters.keep_latents, self._parameters.check_step is not None
        self._step_hashes = StepHashes(keeps=keeps) if hashes_steps or keeps or checks else None
        self._denoising = Denoising(job, storage, watch, self.timer, self._step_hashes, may_show)
        self._stages = self._parameters.stages

    def run(self) -> JobResult:
        """Generate; where memory runs out outside of a call that can be made again, once more with a smaller plan.

        Returns:
            A `generated` or `failed` result.

        Raises:
            DeviceFailed: the device no longer works in this process.
            Unavailable: the storage does not answer.
            NotPrepared: files that the job needs must be downloaded first.
            BaseException: what is thrown into the coroutine.
        """
        while True:
            try:
                return self._generate()
            except Exception as error:
                if isinstance(error, Unavailable | NotPrepared):
                    raise
                _log.exception("job %s failed", self._job.id)
                raise_if_device_failed(error, self._pool.device)
                failure = failure_of(error)
            # Outside `except`, the error is gone, and with it the tensors that its traceback referred to.
            free_memory()
            may_step_down = failure.code is FailureCode.OUT_OF_MEMORY and not self._flight.usage.failed_plans
            if not may_step_down or not self._engine.residency.step_down(self._flight):
                return JobResult("failed", error=failure)

    def _generate(self) -> JobResult:
        """Make one attempt: every stage with a model of its own."""
        job, parameters = self._flight, self._parameters
        job.steps_done = job.steps = 0
        if self._step_hashes is not None:
            self._step_hashes.begin()
        done = Progress([torch.Generator("cpu").manual_seed(seed) for seed in parameters.noise_seeds])
        done.maps, done.map_uses = make_control_maps(job, self._engine, self._pool, self._storage)
        if done.maps:
            job.usage.note_flops(None)  # preprocessors are not in the table
            self.timer.end_stage("preprocess")
        for stage in self._stages:
            if job.stage is not stage:
                self._engine.residency.begin_stage(job, stage)
                if self._parameters.hires is not None:
                    begin_second_pass(done, job, self._engine, self._pool)
                    self.timer.end_stage("upscale")
                elif self._parameters.cascade is not None:
                    done.enlarge(CASCADE_SCALE)
            try:
                self._run_stage(stage, done)
            except StepMade:
                return self._checked(done)
            if done.non_finite:
                return JobResult.failed(FailureCode.INTERNAL, _not_finite(self._parameters))
        receipt = self._receipt(done).model_copy(update=done.tokens)
        result = JobResult("generated", images=done.images, receipt=receipt, measured=job.usage.measured)
        if self._step_hashes is None:
            return result
        # The layers of an image are made of the same latents.
        of_files = [steps for steps in self._step_hashes.of_images for _ in range(self._parameters.layers or 1)]
        return replace(result, step_hashes=of_files, latents=self._step_hashes.latents)

    def _checked(self, done: Progress) -> JobResult:
        """The result of a job that made one step of an image: what its latents are, and no image."""
        step = self._flight.steps_done
        hashes = [] if self._step_hashes is None else [image[-1] for image in self._step_hashes.of_images]
        about = {
            **done.tokens,
            "checked_step": job_receipt.CheckedStep(step=step, steps=self._flight.steps, sha256=hashes),
        }
        return JobResult("generated", receipt=self._receipt(done).model_copy(update=about))

    def _run_stage(self, stage: JobParameters, done: Progress) -> None:
        """Run one stage. Nothing refers to its model afterwards: it may have to make room for the next one's."""
        job, timer = self._flight, self.timer
        # The model, placed by its memory plan.
        job.coroutine.take_turn("load")
        used_before = job.coroutine.seconds
        model = self._engine.residency.place(job)
        if stage is self._parameters:  # its costs are learned for the job's model
            job.usage.load_seconds += job.coroutine.seconds - used_before
        done.enter_latent_space(model.vaes.module(None), stage)
        timer.end_stage("load")

        # The stage's adapters.
        with torch.inference_mode(mode=False), torch.no_grad():
            keep = self._engine.residency.adapter_sets(model)
            loaded = model.adapters.load(stage.loras, keep=keep)
            job.adapters = model.with_inversions(loaded, stage)
        if stage is self._parameters:
            counted = with_counts(stage, job.adapters.inversions)
            done.tokens = token_counts(model.base, model.spec.family_spec, counted)
        timer.end_stage("load_adapters")

        # Input images, cropped around the mask if the job wants that.
        if done.inputs is None:
            done.inputs = read_inputs(stage, self._storage, done.maps)
            if stage is self._parameters:
                done.crop = inpainting.find_crop(done.inputs.mask, stage.padding_mask_crop)
        inputs = replace(done.inputs, job=stage, latents=done.latents, starts=done.starts)
        timer.end_stage("read_inputs")

        # Prompts to embeddings.
        job.coroutine.take_turn("encode_prompt")
        cropped = inpainting.crop_inputs(inputs, done.crop, of_pixels=model.family.vae is None)
        if not model.spec.family_spec.runs_later_only:
            done.prompts = self._encode(model, cropped, done)
        embeddings = done.prompts
        job.adapters = model.with_image_prompts(job.adapters, cropped)
        embeddings = lengthen_prompt(embeddings, job.adapters.image_prompts)
        self._engine.residency.memory.keep(job, kept_bytes(stage, embeddings))
        timer.end_stage("encode_prompt")

        # Noise to latents to images.
        try:
            result = self._denoising.run(model, stage, cropped, embeddings, done)
        except StepMade:
            done.uses.append(StageUse.of(job, model))
            raise
        if stage is self._stages[-1]:
            # Outside the mask the result is the input image, pixel for pixel.
            images = [to_pil(image) for image in model.family.read_images(result)]
            done.images = inpainting.restore(images, inputs, done.crop, done.scale)
            timer.end_stage("decode")
        elif self._parameters.hires is not None:
            done.starts = result if wants_latents(self._parameters, stage) else [to_pil(image) for image in result]
            timer.end_stage("decode")
        else:
            done.latents = result
        done.uses.append(StageUse.of(job, model))

    def _encode(self, model: LoadedModel, inputs: GenerationInputs, done: Progress) -> Mapping[str, Any]:
        """The prompts as arguments of the pipeline call."""
        encoder = model.encoder(self._flight.adapters, self._job.owner)
        with self._engine.flops.noting_encoders(encoder.pipeline, self._flight.usage.note_flops):
            embeddings = encoder.encode(inputs)
        self._pool.count_look_ups(model, encoder)
        self._engine.residency.end_stage()
        look_ups = encoder.owners_cache_use
        was_ahead = self._pool.prompts_ahead.was_encoded(self._parameters, self._job.owner)
        ahead = min(encoder.cache_use.ahead, look_ups.misses) if was_ahead else 0
        before = done.embeddings
        done.embeddings = CacheUse(
            hits=before.hits + look_ups.hits, misses=before.misses + look_ups.misses, ahead=before.ahead + ahead
        )
        return embeddings

    def _receipt(self, done: Progress) -> Receipt:
        self._engine.note_memory(self._flight)
        return receipts.make_receipt(
            self._flight,
            done.uses,
            upscaler=done.upscaler,
            maps=done.map_uses,
            embeddings=done.embeddings,
            budget_bytes=self._pool.plan_selector.size_bytes,
            predicted_calls=self._denoising.predicted_calls,
            timings={"queue": round(self._job.queue_seconds, 4), **self.timer.seconds},
            worker=self._worker_name,
        )


def _not_finite(job: JobParameters) -> str:
    """Why an image of this job cannot be made of its latents, and what may help."""
    scaled = {"LoRAs": job.loras, "ControlNets": job.controls, "IP-Adapters": job.ip_adapters}
    used = " and ".join(noun for noun, entries in scaled.items() if entries)
    remedy = (
        f"try smaller scales of the job's {used}"
        if used
        else "its weights may be damaged, or too large for the `dtype` of its row in the catalogue"
    )
    return f"the model's output contains NaN or infinite values: {remedy}"
