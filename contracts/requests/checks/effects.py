"""Refuses fields that have no effect together with others, so that nothing is ignored.

Part of the checks in `validation.py`. A message names both fields, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator

from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem
from contracts.requests.defaults import request_mode, value_of
from contracts.requests.entries import DynamicThresholding
from contracts.requests.fields import DEFAULT_OUTPUT_QUALITY
from contracts.requests.guidance import guidance_problems, with_defaults
from contracts.requests.schema import ControlNetRequest, JobRequest


def effect_problems(request: JobRequest, model: ModelSpec, steps_run: int) -> Iterator[FieldProblem]:
    """Yield what cannot act in a request; `steps_run` is the number of denoising steps that its job runs."""
    yield from _guidance_problems(request, model)
    if "guidance" in model.family_spec.modes.get(request_mode(request), ()):
        yield from guidance_problems(request.guidance, model, steps_run)
        yield from _zero_step_problems(request, model)
    yield from _weak_guidance_problems(request, model)
    yield from thresholding_problems("dynamic_thresholding", request.dynamic_thresholding, model)
    yield from _true_cfg_problems(request, model)
    yield from _control_range_problems(request, steps_run)
    quality = request.output_quality
    if request.output_format == "png" and quality != DEFAULT_OUTPUT_QUALITY:
        message = (
            f"has no effect while output_format is png, which is lossless, got {quality}; set output_format to "
            "jpeg or webp, or remove output_quality"
        )
        yield FieldProblem("output_quality", message, DEFAULT_OUTPUT_QUALITY)


def _guidance_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    """Yield fields that act by classifier-free guidance, and have a value, while guidance is off."""
    needs = "true_cfg_scale" if model.family_spec.negative_needs_true_cfg else "guidance_scale"
    off = 1.0 if model.family_spec.negative_needs_true_cfg else model.family_spec.guidance_off
    is_refused = needs in model.refused
    scale = off if is_refused else value_of(request, model, needs)
    if request.cascade is not None and request.cascade.guidance_scale > off:
        return  # its second model is guided
    if not isinstance(scale, int | float) or scale > off:
        return
    used = model.family_spec.modes.get(request_mode(request), frozenset())
    for field in ("negative_prompt", "guidance_rescale", "guidance"):
        if field not in used or not getattr(
            request, field
        ):  # an empty prompt, or a rescale of 0, asks for nothing
            continue
        reason = f"{model.id} runs without {needs}" if is_refused else f"{needs} is {scale:g}"
        remedy = f"remove {field}" if is_refused else f"set that above {off:g}, or remove {field}"
        allowed = None if is_refused else f"{needs} > {off:g}"
        yield FieldProblem(field, f"has no effect while {reason}; {remedy}", allowed)


def thresholding_problems(
    field: str, given: DynamicThresholding | None, model: ModelSpec
) -> Iterator[FieldProblem]:
    """Yield a ratio that decides nothing, since values are cut off at 1 whatever it is."""
    if given is None or given.ratio is None:
        return
    own = model.scheduler_config.get("sample_max_value")
    if given.max_value == 1 or (given.max_value is None and own == 1):
        which = "max_value" if given.max_value is not None else f"the max_value of {model.id}"
        message = f"has no effect while {which} is 1; set max_value above 1, or remove this"
        yield FieldProblem(f"{field}.ratio", message)


def _zero_step_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    """Yield a rescale beside steps in which nothing is predicted, which has no size to be scaled by."""
    guidance, rescale = request.guidance, value_of(request, model, "guidance_rescale")
    if guidance is None or guidance.kind != "cfg_zero" or not rescale:
        return
    zero_steps = with_defaults(guidance, model).zero_steps
    if zero_steps:
        message = f"cannot be used with guidance.zero_steps {zero_steps}; set that to 0, or guidance_rescale"
        yield FieldProblem("guidance_rescale", message, 0)


def _weak_guidance_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    """Yield a guidance that is too weak to act; 0 and the value that turns it off ask for none."""
    scale, off = request.guidance_scale, model.family_spec.guidance_off
    is_input = model.family_spec.negative_needs_true_cfg or "negative_prompt" in model.refused
    if scale is None or is_input or "guidance_scale" in model.refused or not 0 < scale < off:
        return
    message = (
        f"has no effect between 0 and {off:g}, which turns it off, got {scale:g}; set it above {off:g}, or to "
        f"{off:g} for none, or remove it"
    )
    yield FieldProblem("guidance_scale", message, f"0, {off:g}–30")


def _true_cfg_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    scale = request.true_cfg_scale
    used = model.family_spec.modes.get(request_mode(request), frozenset())
    if scale is not None and scale < 1 and "true_cfg_scale" in used:
        message = f"has no effect below 1, which turns it off, got {scale:g}; set it above 1, or remove it"
        yield FieldProblem("true_cfg_scale", message, "1–30")


def _control_range_problems(request: JobRequest, steps_run: int) -> Iterator[FieldProblem]:
    """Yield ControlNets in whose range no whole step lies, so that they never act, as diffusers counts steps."""
    if not isinstance(request, ControlNetRequest):
        return
    for index, control in enumerate(request.controls):
        start, end = control.guidance_start, control.guidance_end
        if start >= end or steps_run < 1:  # refused elsewhere
            continue
        if not any(step / steps_run >= start and (step + 1) / steps_run <= end for step in range(steps_run)):
            message = (
                f"gives {control.controlnet} no effect: none of the {steps_run} steps is wholly between "
                f"guidance_start ({start:g}) and guidance_end ({end:g}); widen the range, or raise "
                "num_inference_steps"
            )
            yield FieldProblem(f"controls.{index}.guidance_end", message, f"steps of {1 / steps_run:.3f}")
