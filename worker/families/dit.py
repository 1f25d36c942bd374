"""DiT: a transformer that is told the class of an image, one of ImageNet's, and reads no prompt.

Arguments are those of diffusers' `DiTPipeline` (`diffusers.pipelines.dit`), which has neither sizes nor callbacks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from contracts.catalogue.class_labels import CLASS_COUNT, label_problem, read_labels
from contracts.catalogue.families import Mode
from contracts.requests.parameters import JobParameters
from contracts.weights.class_checkpoints import side_of
from contracts.weights.configs import read_config
from worker.families import DiffusersFamily, first_difference
from worker.families.inputs import GenerationInputs


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of the pipeline: a class for each image."""
    job = inputs.job
    return {
        "class_labels": [job.class_label] * job.num_images,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
    }


def _misfit(components: Mapping[str, Any]) -> str | None:
    transformer, vae = components["transformer"].config, components["vae"].config
    channels = vae.latent_channels
    pairs: dict[str, tuple[Any, Any]] = {
        "in_channels of the transformer": (transformer.in_channels, channels),
        # The pipeline's number of an image without a class is the next one.
        "num_embeds_ada_norm of the transformer": (transformer.num_embeds_ada_norm, CLASS_COUNT),
    }
    if transformer.out_channels not in (None, 2 * channels):
        pairs["out_channels of the transformer"] = (transformer.out_channels, channels)
    return first_difference(pairs)


def _read_labels(folder: Path) -> dict[str, Any]:
    """The names of the classes by numbers, where `model_index.json` has texts: diffusers would log that."""
    labels = read_labels(read_config(folder, "model_index.json").get("id2label"))
    return {"id2label": labels} if labels else {}


def _keep_labels(pipeline: Any) -> None:
    """Have the pipelines of jobs know the names of the classes: the class does not keep what it is made with."""
    labels: dict[str, str] = {}
    for name, number in pipeline.labels.items():
        key = str(number)
        labels[key] = f"{labels[key]}, {name}" if key in labels else name
    pipeline.register_to_config(id2label=labels)


def _refusal(pipeline: Any, job: JobParameters) -> str | None:
    label = job.class_label
    if isinstance(label, str) and label not in pipeline.labels:
        return f"class_label {label_problem(label, dict(enumerate(pipeline.labels)))}"
    side = side_of(pipeline.transformer.config, pipeline.vae.config)
    if (job.width, job.height) != (side, side):
        return (
            f"the checkpoint makes images of {side} × {side} only, and the row of {job.model} says {job.width} × "
            f"{job.height}: set its defaults of width and height"
        )
    return None


def _patch(pipeline: Any) -> None:
    pipeline_class: Any = type(pipeline)
    pipeline.__class__ = _with_own_noise(pipeline_class)


@cache
def _with_own_noise(pipeline_class: Any) -> Any:
    """The pipeline class whose scheduler is given each image once, and draws from the image's own generator.

    diffusers' (0.42) gives it the passes with and without the class, of which it throws the second away, and no
    generators, so that an image would depend on what else runs
    (`test_the_pipeline_draws_from_the_global_generator`).
    """

    def call(
        self: Any,
        *,
        class_labels: Sequence[int | str],
        generator: Sequence[torch.Generator],
        num_images_per_prompt: int = 1,
        **others: Any,
    ) -> Any:
        del num_images_per_prompt  # each image has its own class
        numbers = [self.labels[label] if isinstance(label, str) else label for label in class_labels]
        step = self.scheduler.step
        self.scheduler.step = _once_an_image(step, generator)
        try:
            return pipeline_class.__call__(self, class_labels=numbers, generator=generator, **others)
        finally:
            self.scheduler.step = step

    return type(pipeline_class.__name__, (pipeline_class,), {"__call__": call})


def _once_an_image(step: Callable[..., Any], generators: Sequence[torch.Generator]) -> Callable[..., Any]:
    takes = "generator" in inspect.signature(step).parameters
    own = {"generator": list(generators)} if takes else {}

    def step_once(output: torch.Tensor, timestep: Any, sample: torch.Tensor) -> Any:
        images = len(generators)
        result = step(output[:images], timestep, sample[:images], **own)
        result.prev_sample = torch.cat([result.prev_sample] * (len(sample) // images))
        return result

    return step_once


FAMILY = DiffusersFamily(
    id="dit",
    pipelines={Mode.TXT2IMG: "DiTPipeline"},
    controlnet="",
    multi_controlnet="",
    denoiser="transformer",
    denoiser_class="DiTTransformer2DModel",
    repeated_blocks=("BasicTransformerBlock",),
    t5=None,
    encoding=None,
    arguments=arguments,
    misfit=_misfit,
    prepare=_keep_labels,
    load_others=_read_labels,
    refusal=_refusal,
    patch=_patch,
)
