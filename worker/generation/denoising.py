"""Noise to latents to images: the pipeline's call of one stage of a job, with its listeners and intercepts.

Knows no adapters and no prompts: what a stage encodes is given. Nothing of it stays on the pipeline afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL import Image

from contracts.jobs.failures import FailureCode, JobFailed
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from worker.engine.coroutine import Compute, Intercept
from worker.engine.job import JobInFlight
from worker.engine.views import refuse_editing, view
from worker.families.inputs import GenerationInputs
from worker.generation.guidance import JobGuidance
from worker.generation.hires import wants_latents
from worker.generation.stages import Progress, later_steps, require_steps
from worker.generation.steps.checked import CheckedStep
from worker.generation.steps.hashes import StepHashes
from worker.generation.steps.listener import StageTimer, StepListener, Watch
from worker.generation.t2i_adapters import AdapterControl, AdapterFeatures, take_features
from worker.pool.model import LoadedModel
from worker.sampling.previews import DenoisedEstimate, PreviewDecoder, PreviewEmitter, PreviewRequest, decode_tiny
from worker.sampling.step_cache import StepCache


class Denoising:
    """The pipeline calls of one job, a stage at a time.

    Attributes:
        predicted_calls: of the denoiser in the latest call, those that the step cache made unnecessary.
    """

    def __init__(
        self,
        job: JobInFlight,
        storage: Storage,
        watch: Watch,
        timer: StageTimer,
        step_hashes: StepHashes | None,
        may_show: Callable[[Image.Image], bool] | None,
    ) -> None:
        """`step_hashes` and `may_show` are those of `JobGeneration`."""
        self._flight, self._parameters, self._storage = job, job.generation, storage
        self._watch, self._step_hashes, self._may_show = watch, step_hashes, may_show
        self._timer = timer
        self.predicted_calls = 0

    def run(
        self,
        model: LoadedModel,
        stage: JobParameters,
        inputs: GenerationInputs,
        embeddings: Mapping[str, Any],
        done: Progress,
    ) -> Any:
        """Call the pipeline: one image per seed, with previews and the step cache as the job wants them.

        Returns:
            The images, or the latents that the next stage goes on with; notes whether they were finite.
        """
        job, steps_before = self._flight, self._flight.steps_done
        inputs, features = take_features(model, inputs)
        pipeline = _pipeline(model, stage, inputs)
        later = later_steps(self._parameters, stage, pipeline.scheduler, model.spec.family_spec.kind)
        emitter = self._preview_emitter(pipeline, model, stage)
        step_cache = None
        if stage.speed == "fast":
            step_cache = StepCache(model.spec.family_spec.step_cache, model.denoiser)
        checked = CheckedStep.of(self._parameters, self._storage)
        observers = (self._watch, self._timer, emitter, step_cache, self._step_hashes, checked)
        listener = StepListener(pipeline, job, *observers, later_steps=later)
        make_call = self._make_call(model, stage, features, listener, step_cache or checked or _compute)
        if stage.guidance is not None:
            # The pipeline's own would rescale what the guider has guided.
            inputs = replace(inputs, job=inputs.job.model_copy(update={"guidance_rescale": 0.0}))
        job.coroutine.intercept = self._timed(make_call)
        as_latents = wants_latents(self._parameters, stage)
        output = {"output_type": "latent" if as_latents else "pt"}
        arguments = {"num_images_per_prompt": 1, **output, **model.family.arguments(inputs)}
        try:
            result = pipeline(**arguments, **embeddings, generator=list(done.generators))
        finally:
            listener.close()
            job.coroutine.intercept = None
            if emitter is not None:
                emitter.close()
        if checked is not None:
            message = f"the job has {job.steps_done - steps_before} steps, and no step {checked.step}"
            raise JobFailed(FailureCode.INPUT_INCOMPATIBLE, message)
        require_steps(self._parameters, stage, job.steps_done - steps_before)
        self.predicted_calls = 0 if step_cache is None else step_cache.predicted_calls
        done.non_finite = bool(listener.non_finite_images)
        if as_latents:
            return _unpack(model, pipeline, (stage.width, stage.height), result.images)
        return result.images

    def _make_call(
        self,
        model: LoadedModel,
        stage: JobParameters,
        features: Sequence[AdapterFeatures],
        listener: StepListener,
        inner: Intercept,
    ) -> Intercept:
        """What makes each call of a view: `inner`, with the job's guidance and T2I-Adapters around it."""
        if stage.guidance is not None:
            in_two_calls = model.family.guides_in_two_calls
            inner = JobGuidance(
                self._flight, model.denoiser, in_two_calls=in_two_calls, steps=lambda: listener.steps, inner=inner
            )
        if features:
            inner = AdapterControl(model.denoiser, features, steps=lambda: listener.steps, inner=inner)
        return inner

    def _timed(self, make_call: Intercept) -> Intercept:
        """What stands before each call of a view: the stage that encodes the inputs ends at the first step's."""
        begun = False

        def intercept(module: torch.nn.Module, entry: str, compute: Compute) -> Any:
            nonlocal begun
            if entry == "__call__" and not begun:
                begun = True
                self._timer.end_stage("encode_inputs")
            return make_call(module, entry, compute)

        return intercept

    def _preview_emitter(self, pipeline: Any, model: LoadedModel, stage: JobParameters) -> PreviewEmitter | None:
        """Return what makes the job's previews; None if it wants none."""
        parameters = self._parameters
        if not parameters.previews:
            return None
        size = (stage.width, stage.height)
        return PreviewEmitter(
            PreviewRequest(parameters.previews, parameters.num_images),
            DenoisedEstimate(pipeline.scheduler, model.spec.family_spec.kind),
            _preview_decoder(model, stage.preview_vae),
            unpack=partial(_unpack, model, pipeline, size),
            size=size,
            emit=self._watch.preview,
            may_show=self._may_show,
        )


def _pipeline(model: LoadedModel, stage: JobParameters, inputs: GenerationInputs) -> Any:
    """The pipeline of a stage; raises JobFailed where it cannot do what the job asks for."""
    controlnets = [control.component for control in inputs.job.controls]
    settings = {} if stage.dynamic_thresholding is None else stage.dynamic_thresholding.settings()
    pipeline = model.pipeline(inputs.job.mode, stage.scheduler, controlnets, view, stage.vae, settings)
    refuse_editing(type(pipeline))
    reason = model.family.refusal(pipeline, stage)
    if reason is not None:
        raise JobFailed(FailureCode.INPUT_INCOMPATIBLE, reason)
    return pipeline


def _compute(module: torch.nn.Module, entry: str, compute: Compute) -> Any:  # noqa: ARG001
    return compute()


def _preview_decoder(model: LoadedModel, vae: str | None) -> PreviewDecoder:
    """What makes the pixels of previews: the tiny VAE with this id; None: the model's linear map."""
    if vae is None:
        return model.projection.apply
    return partial(decode_tiny, view(model.vaes.preview_module(vae), ("decode",)))


def _unpack(model: LoadedModel, pipeline: Any, size: tuple[int, int], latents: torch.Tensor) -> Any:
    return model.family.unpack_latents(pipeline, latents, size)


def to_pil(image: torch.Tensor) -> Image.Image:
    """Round an image (3 or 4, height, width) of 0…1 as `VaeImageProcessor` does, but on its device.

    A quarter of the bytes cross to the host, and the host converts nothing.
    """
    pixels = image.float().mul(255).round_().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
