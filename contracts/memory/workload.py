"""What a memory plan is made for: size and kind of a request's pipeline call, or of one by a model's defaults."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contracts.catalogue.families import ALL_FAMILIES, Family, Mode
from contracts.catalogue.references import References
from contracts.catalogue.rows.models import ModelSpec
from contracts.memory.activations import WorkloadShape
from contracts.memory.sizes.component import Component
from contracts.prompts.syntax import joined
from contracts.prompts.tokens import max_windows
from contracts.requests.fields import PROMPT_FIELDS
from contracts.requests.parameters import JobParameters


@dataclass(frozen=True)
class Workload:
    """Size and kind of one pipeline call.

    Attributes:
        extras: ControlNets and adapters that the request names.
        steps: denoising steps, for the estimate of seconds.
    """

    shape: WorkloadShape
    extras: tuple[Component, ...] = ()
    steps: int = 28


def workload_of(
    family: str, job: JobParameters, images: int | None = None, extras: Sequence[Component] = ()
) -> Workload:
    """The workload of a call that generates this job's images.

    Args:
        family: id of its model's row in `families.py`, which may be that of other checkpoints.
        images: in the call; None: the job's own.
        extras: the ControlNets and adapters that the job names.
    """
    row = ALL_FAMILIES[family]
    known = row.references or References(0, "")
    modes = (Mode.INPAINT, Mode.EDIT_INPAINT) if known.beside_image else (Mode.INPAINT,)
    is_reference = row.reads_image_as_reference and job.mode in modes
    # Else image and mask are what a ControlNet for inpainting is given.
    begins = "strength" in row.modes.get(job.mode, ())
    tokens = [known.tokens_of(one.width, one.height) for one in job.references]
    if is_reference:
        tokens = [known.tokens_of(job.width, job.height, as_it_is=True)]
    shape = WorkloadShape(
        width=job.width,
        height=job.height,
        images=job.num_images if images is None else images,
        guided=_is_guided(row, job.guidance_scale),
        text_tokens=(job.max_sequence_length or _fixed_tokens(row, _prompt_bytes(job)))
        + sum(tokens)
        + sum(extra.prompt_tokens for extra in extras),
        instruction_tokens=_instruction_tokens(row),
        windows=_max_windows(job),
        started=(begins and job.image is not None) or (job.mode is Mode.IMG2IMG and job.refiner is None),
        masked=begins and job.mask_image is not None,
        controls=len(job.controls) + (job.control_image is not None),
        controls_once=job.mode in row.controls_encoded_once,
        reference_pixels=job.reference_pixels + job.width * job.height * is_reference,
        layers=job.layers or 0,
    )
    return Workload(shape, tuple(extras), job.num_inference_steps)


def default_workload(model: ModelSpec, *, images: int = 1, size: tuple[int, int] | None = None) -> Workload:
    """The workload of a request that names no parameters, but for a size (width, height) that is given."""
    width, height = size or (_default(model, "width"), _default(model, "height"))
    known = model.family_spec.references
    # A model that only edits is given at least one.
    reference = known.scaled(width, height) if known and Mode.TXT2IMG not in model.family_spec.modes else None
    tokens = known.tokens_of(*reference) if known and reference else 0
    shape = WorkloadShape(
        width=width,
        height=height,
        images=images,
        guided=_is_guided(model.family_spec, _guidance_scale(model)),
        text_tokens=(_default(model, "max_sequence_length") or _fixed_tokens(model.family_spec)) + tokens,
        instruction_tokens=_instruction_tokens(model.family_spec),
        reference_pixels=math.prod(reference) if reference else 0,
        layers=_default(model, "layers"),
    )
    return Workload(shape, steps=_default(model, "num_inference_steps"))


def _fixed_tokens(family: Family, prompt_bytes: int | None = None) -> int:
    """The most tokens that its encoders read of a text where requests have no `max_sequence_length`.

    Args:
        prompt_bytes: of the text; None: it is as long as may be.
    """
    limits = (
        encoder.max_tokens if encoder.is_padded or prompt_bytes is None else min(encoder.max_tokens, prompt_bytes)
        for encoder in family.text_encoders
    )
    return max(limits, default=0)


def _instruction_tokens(family: Family) -> int:
    """The most tokens that its encoders read before a text, which the denoiser is not given."""
    return max((encoder.instruction_tokens for encoder in family.text_encoders), default=0)


def _max_windows(job: JobParameters) -> int:
    """An upper bound of the windows of CLIP that the longest of the prompts takes; 1 unless it is chunked."""
    if job.long_prompt != "chunk":
        return 1
    every = [job.chunks_of(field) or () for field in PROMPT_FIELDS]
    return max(max_windows([len(joined((chunk,)).encode()) for chunk in chunks]) for chunks in every)


def _prompt_bytes(job: JobParameters) -> int:
    """Bytes of the longest prompt: a token has at least one."""
    return max(len((job.text_of(field) or "").encode()) for field in PROMPT_FIELDS)


def _is_guided(family: Family, scale: float | None) -> bool:
    """Whether one step denoises each image with and without the prompt at once; true CFG does it in turn."""
    in_turn = family.negative_needs_true_cfg or family.guides_in_turn
    return not in_turn and scale is not None and scale > family.guidance_off


def _guidance_scale(model: ModelSpec) -> float | None:
    scale = model.default("guidance_scale")
    return None if scale is None or "guidance_scale" in model.refused else float(str(scale))


def _default(model: ModelSpec, field: str) -> int:
    return int(str(model.default(field) or 0))
