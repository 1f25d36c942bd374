"""From a job, or a model's own defaults, to the load that is planned for. Knows no sizes of weights."""

from __future__ import annotations

from collections.abc import Sequence

from contracts.activations import Canvas
from contracts.catalogue import ModelSpec
from contracts.families import FAMILIES, Family
from contracts.inventory import Component
from contracts.parameters import JobParameters
from contracts.plans import Load


def load_of(family: str, job: JobParameters, images: int | None = None, extras: Sequence[Component] = ()) -> Load:
    """What a pipeline call does that paints this job, or a batch like it.

    Args:
        images: in the call; None: the job's own.
        extras: the weighed ControlNets and adapters that the job names.
    """
    canvas = Canvas(
        width=job.width,
        height=job.height,
        images=job.num_images if images is None else images,
        guided=_is_guided(FAMILIES[family], job.guidance_scale),
        text_tokens=job.max_sequence_length or 0,
        started=job.image is not None,
        masked=job.mask_image is not None,
        controls=len(job.controls),
    )
    return Load(canvas, tuple(extras), job.num_inference_steps)


def own_load(model: ModelSpec, *, images: int = 1, size: tuple[int, int] | None = None) -> Load:
    """Images as the model's row has them by default, but for a size (width, height) that is given."""
    width, height = size or (_whole(model, "width"), _whole(model, "height"))
    canvas = Canvas(
        width=width,
        height=height,
        images=images,
        guided=_is_guided(model.architecture, float(str(model.default("guidance_scale")))),
        text_tokens=_whole(model, "max_sequence_length"),
    )
    return Load(canvas, steps=_whole(model, "num_inference_steps"))


def _is_guided(family: Family, scale: float | None) -> bool:
    """Whether both passes of guidance go through the denoiser at once; true guidance runs them in turn."""
    return not family.negative_needs_true_cfg and scale is not None and scale > 1


def _whole(model: ModelSpec, field: str) -> int:
    return int(str(model.default(field) or 0))
