"""What passes from one stage of a job to the next: latents, the inputs that were read, and counts of steps.

Knows schedulers, but neither models nor pipelines.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from contracts.catalogue.schedulers import Kind
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.receipt import CacheUse, ControlMap, Weights
from contracts.requests.parameters import JobParameters
from worker.families.inputs import GenerationInputs
from worker.generation.inpainting import Box
from worker.generation.results.receipts import StageUse

#: What a job keeps: latents, in steps of the scheduler twice, and as many again for start images, masks and noise.
_KEPT_LATENTS = 4

#: What must be equal in two VAEs' configurations for one model to go on with the latents of another.
_LATENT_SPACE = ("latent_channels", "scaling_factor", "shift_factor", "latents_mean", "latents_std")


@dataclass
class Progress:
    """Results of the stages of one attempt so far.

    Attributes:
        maps: control images that the job has made itself, by the indexes of their controls.
        map_uses: what the receipt says of them.
        inputs: of the job, once they have been read.
        crop: that is generated of them.
        scale: how many times as wide and high as the job's first images those of this stage are.
        generators: one for each image, which all stages draw from.
        latents: that the last stage has made.
        prompts: embeddings, which a stage that only goes on with others' images uses again.
        latent_space: settings of the VAE whose latents they are.
        starts: what a second pass starts from.
        upscaler: that made it, if a network did.
        images: of the job, made by its last stage.
        non_finite: whether values of an image were not finite.
        uses: what each stage used.
        embeddings: look-ups of the owner's prompts.
        tokens: fields of the receipt about the prompts.
    """

    generators: Sequence[torch.Generator]
    maps: Mapping[int, Image.Image] = field(default_factory=dict)
    map_uses: Sequence[ControlMap] = ()
    inputs: GenerationInputs | None = None
    crop: Box | None = None
    scale: int = 1
    latents: torch.Tensor | None = None
    prompts: Mapping[str, Any] = field(default_factory=dict)
    latent_space: tuple[Any, ...] = ()
    starts: Sequence[Image.Image] | torch.Tensor = ()
    upscaler: Weights | None = None
    images: Sequence[Image.Image] = ()
    non_finite: bool = False
    uses: list[StageUse] = field(default_factory=list)
    embeddings: CacheUse = field(default_factory=CacheUse)
    tokens: dict[str, Any] = field(default_factory=dict)

    def enlarge(self, scale: int) -> None:
        """Go on with larger images: inputs are read again at that size, of which the same part is generated."""
        self.inputs, self.scale = None, scale
        if self.crop is not None:
            left, upper, right, lower = self.crop
            self.crop = left * scale, upper * scale, right * scale, lower * scale

    def enter_latent_space(self, vae: Any, stage: JobParameters) -> None:
        """Note whose latents this stage has; None: they are pixels.

        Raises:
            JobFailed: they are not those of the stage before.
        """
        space = () if vae is None else tuple(vae.config.get(name) for name in _LATENT_SPACE)
        if self.latents is not None and space != self.latent_space:
            message = f"{stage.model} cannot continue from the first model's latents: their VAEs differ"
            raise JobFailed(FailureCode.MODEL_LOAD_FAILED, message)
        self.latent_space = space


def later_steps(job: JobParameters, stage: JobParameters, scheduler: Any, kind: Kind) -> int:
    """Return the steps that the job will make after this stage, counted with this stage's scheduler.

    As `get_timesteps` of diffusers' img2img pipelines counts them, for a refiner that of SDXL.

    Args:
        kind: of the model.

    Raises:
        JobFailed: there would be none, which depends on how the scheduler spreads its steps.
    """
    refiner = job.refiner
    if stage is job and job.larger is not None:
        return _second_pass_steps(job.stages[-1], scheduler, kind)
    if refiner is None or stage is not job:
        return 0
    twin = copy.deepcopy(scheduler)
    twin.set_timesteps(refiner.steps or job.num_inference_steps)
    trained = twin.config.num_train_timesteps
    count = int((twin.timesteps < round(trained - refiner.switch_at * trained)).sum())
    if not count:
        raise _without_steps(refiner.model, job, "lower refiner.switch_at, or raise refiner.steps")
    return count + (twin.order == 2 and count % 2 == 0)


def _second_pass_steps(second: JobParameters, scheduler: Any, kind: Kind) -> int:
    """Pipelines of flow-matching models round down the skipped steps, others the steps that are run."""
    steps = second.num_inference_steps
    wanted = steps * (1.0 if second.strength is None else second.strength)
    count = steps - int(steps - wanted) if kind == "flow" else int(wanted)
    return int(count * scheduler.order - (scheduler.order - 1))


def require_steps(job: JobParameters, stage: JobParameters, steps: int) -> None:
    """Refuse what a stage without a step has made.

    Raises:
        JobFailed: the scheduler gave it none.
    """
    if not steps and job.refiner is not None:
        raise _without_steps(stage.model, job, "raise refiner.switch_at, strength or num_inference_steps")


def _without_steps(model: str, job: JobParameters, remedy: str) -> JobFailed:
    message = f"scheduler {job.scheduler} leaves {model} no step to run: {remedy}"
    return JobFailed(FailureCode.INTERNAL, message)


def kept_bytes(parameters: JobParameters, embeddings: Mapping[str, Any]) -> int:
    """Return what a job keeps between its calls: embeddings, latents, what its scheduler and inputs are of."""
    tensors: list[torch.Tensor] = [
        part for value in embeddings.values() for part in (value if isinstance(value, list) else [value])
    ]
    return sum(tensor.nbytes for tensor in tensors) + parameters.pixels * parameters.latent_bytes * _KEPT_LATENTS
