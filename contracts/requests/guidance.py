"""The request field `guidance`: its options, what is wrong with one, and one with all defaults.

Ranges are in the field's schema; which kinds a model takes, and how many layers it has, is in the model's row.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from contracts.catalogue.guidance import GUIDANCE_KINDS, SKIPPED_LAYERS, GuidanceKind
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem
from contracts.left_out_fields import OrLeftOut
from contracts.requests.strict_model import StrictModel

_MAX_LAYERS = 64


class Guidance(StrictModel):
    """A way to guide. Options that are not of its kind are refused."""

    kind: GuidanceKind = Field(
        description="`cfg_zero`: CFG-Zero*, which scales the pass without the prompt to fit the other. "
        "`apg`: adaptive projected guidance, which allows high scales without glaring "
        "colors. `pag`: perturbed-attention guidance, and `slg`: skip-layer guidance, which "
        "also guide away from the prediction that the model makes with some of its layers "
        "disturbed or left out; both make a third pass and take 1.5 times as long."
    )
    scale: OrLeftOut[float] = Field(
        None, gt=0, le=10, description="`pag`, `slg`: weight of the third pass. Default: 3, 2.8."
    )
    layers: OrLeftOut[tuple[int, ...]] = Field(
        None,
        min_length=1,
        max_length=_MAX_LAYERS,
        description="`pag`, `slg`: numbers of the layers that are disturbed, or left out, from 0: of the "
        "transformer's blocks, or of those in the middle of a UNet. Default: 7, 8, 9 of a transformer that has so "
        "many, else its middle one; all in the middle of a UNet.",
    )
    start: OrLeftOut[float] = Field(
        None,
        ge=0,
        le=1,
        description="Fraction of the steps at which it starts: for `pag` and `slg` the third pass, which "
        "is never made in the first step; for the others all guidance. Default: 0; for `slg` "
        "0.01.",
    )
    stop: OrLeftOut[float] = Field(
        None,
        ge=0,
        le=1,
        description="Fraction of the steps at which it stops; more than `start`. Default: 1; for `slg` 0.2.",
    )
    momentum: OrLeftOut[float] = Field(
        None,
        ge=-1,
        le=1,
        description="`apg`: how much of earlier steps' guidance is added; negative values push away from "
        "it, 0 adds none. Default: -0.5.",
    )
    eta: OrLeftOut[float] = Field(
        None,
        ge=0,
        le=1,
        description="`apg`: how much of the guidance that saturates colors is kept; 1 keeps all of it. "
        "Default: 0.",
    )
    norm_threshold: OrLeftOut[float] = Field(
        None,
        ge=0,
        le=1000,
        description="`apg`: maximum norm of the guidance, the difference of two predictions; 0: no "
        "maximum. Default: 15.",
    )
    zero_steps: OrLeftOut[int] = Field(
        None,
        ge=0,
        le=20,
        description="`cfg_zero`: number of first steps whose prediction is zero, so that the latents do "
        "not change. Default: 1.",
    )


#: The options, without `kind`.
_OPTIONS = tuple(name for name in Guidance.model_fields if name != "kind")


def with_defaults(guidance: Guidance, model: ModelSpec) -> Guidance:
    """Return it with every option of its kind set; without `layers` where the model's are not known yet."""
    defaults = {**GUIDANCE_KINDS[guidance.kind].options}
    if "layers" in defaults:
        count = model.guidance_layers
        defaults["layers"] = None if count is None else default_layers(guidance.kind, count)
    missing = {name: value for name, value in defaults.items() if getattr(guidance, name) is None}
    return guidance.model_copy(update=missing)


def default_layers(kind: GuidanceKind, count: int) -> tuple[int, ...]:
    """Return the layers of so many that are disturbed, or left out, where a request names none."""
    if kind == "pag":
        return tuple(range(count))
    return SKIPPED_LAYERS if count > SKIPPED_LAYERS[-1] else (count // 2,)


def guidance_problems(guidance: Guidance | None, model: ModelSpec, steps_run: int) -> Iterator[FieldProblem]:
    """Yield what is wrong with the guidance of a request.

    Args:
        steps_run: number of denoising steps.
    """
    allowed = model.family_spec.guidance_kinds
    if guidance is None or not allowed:
        return
    kind = guidance.kind
    if kind not in allowed:
        message = f"{kind} is not supported by {model.id} ({model.family}); use {' or '.join(allowed)}"
        yield FieldProblem("guidance.kind", message, list(allowed))
        return
    known = GUIDANCE_KINDS[kind].options
    for name in _OPTIONS:
        if name not in known and getattr(guidance, name) is not None:
            message = f"has no effect with kind {kind}, whose options are {', '.join(known)}; remove it"
            yield FieldProblem(f"guidance.{name}", message, list(known))
    yield from _layer_problems(guidance, model)
    if guidance.zero_steps is not None and kind == "cfg_zero" and guidance.zero_steps >= max(steps_run, 1):
        message = f"must be less than the {steps_run} steps that are run, got {guidance.zero_steps}"
        yield FieldProblem("guidance.zero_steps", message, f"0–{max(steps_run, 1) - 1}")
    yield from _range_problems(with_defaults(guidance, model), steps_run)


def _layer_problems(guidance: Guidance, model: ModelSpec) -> Iterator[FieldProblem]:
    count, seen = model.guidance_layers, set[int]()
    for index, layer in enumerate(guidance.layers or () if GUIDANCE_KINDS[guidance.kind].needs_pass else ()):
        field = f"guidance.layers.{index}"
        if layer < 0 or (count is not None and layer >= count):
            here = f"; {model.id} has {count}, from 0" if count is not None else "; the first is 0"
            allowed = None if count is None else f"0–{count - 1}"
            yield FieldProblem(field, f"layer {layer} does not exist{here}", allowed)
        elif layer in seen:
            yield FieldProblem(field, f"repeats layer {layer}; name it once")
        seen.add(layer)


def _range_problems(guidance: Guidance, steps_run: int) -> Iterator[FieldProblem]:
    """Yield a range in which no step lies, as diffusers' guiders count steps."""
    start, stop = guidance.start, guidance.stop
    if start is None or stop is None or steps_run < 1:
        return
    if start >= stop:
        message = f"must be less than stop ({stop:g}), got {start:g}"
        yield FieldProblem("guidance.start", message, f"0 ≤ start < {stop:g}")
        return
    first = int(start * steps_run) + GUIDANCE_KINDS[guidance.kind].needs_pass
    if first >= int(stop * steps_run):
        message = (
            f"gives {guidance.kind} no effect: none of the {steps_run} steps is between start ({start:g}) and "
            f"stop ({stop:g}); raise stop, or num_inference_steps"
        )
        yield FieldProblem("guidance.stop", message, f"steps of {1 / steps_run:.3f}")
