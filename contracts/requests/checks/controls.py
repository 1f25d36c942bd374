"""The ControlNets and T2I-Adapters of a request: whether they suit its model, its images and each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.rows.preprocessors import Preprocessor
from contracts.errors import FieldProblem, NotFound
from contracts.requests.entries import Control
from contracts.requests.images.preprocessing import preprocess_problems
from contracts.requests.schema import ControlNetRequest, JobRequest

#: Path of a control in its request, the control, and the row that it names.
_Named = tuple[str, Control, ControlNetSpec]


def control_problems(request: JobRequest, model: ModelSpec, catalogue: Catalogue) -> Iterator[FieldProblem]:
    """Yield what is wrong with the ControlNets and T2I-Adapters of a request, each by itself and together."""
    if not isinstance(request, ControlNetRequest):
        return
    names = [row.id for row in catalogue.controlnets if row.misfit(model) is None]
    needs_inpaint = model.family_spec.inpaint_control_only and request.mask_image is not None
    models = {one.id: one.preprocessor for one in catalogue.preprocessors}
    named: list[_Named] = []
    for index, control in enumerate(request.controls):
        path = f"controls.{index}"
        try:
            row = catalogue.controlnet(control.controlnet)
        except NotFound:
            yield FieldProblem(f"{path}.controlnet", f"unknown ControlNet {control.controlnet[:80]!r}", names)
            continue
        named.append((path, control, row))
        if (misfit := row.misfit(model)) is not None:
            yield FieldProblem(f"{path}.controlnet", misfit, names)
        if needs_inpaint != (row.kind == "inpaint"):
            use = "together with image and mask_image" if row.kind == "inpaint" else "without mask_image"
            yield FieldProblem(f"{path}.controlnet", f"{row.id} can be used on {model.family} only {use}")
        elif request.mask_image is not None and not row.reads_masks:
            message = f"{row.id} has no channels for a mask; remove mask_image, or take another ControlNet"
            yield FieldProblem(f"{path}.controlnet", message, [one for one in names if one != row.id])
        else:
            yield from _control_image_problems(path, control, row)
        yield from _control_mode_problems(path, control, row)
        yield from _control_option_problems(path, control, row, models)
        yield from _control_range_problems(path, control, row)
    most = 1 if needs_inpaint else model.family_spec.max_controls
    if len(request.controls) > most:
        verb = "inpaints" if needs_inpaint else "generates"
        message = f"{model.family} {verb} with one ControlNet at a time, got {len(request.controls)}"
        yield FieldProblem("controls", message, "1 entry")
    yield from _union_problems([entry for entry in named if not entry[2].is_t2i_adapter])


def changed_controls(
    controls: Sequence[Control], model: ModelSpec, catalogue: Catalogue
) -> Iterator[tuple[str, FieldProblem]]:
    """Yield the id of each control of an accepted job that its row would no longer accept, and why.

    Operators may change a row while jobs wait: of another kind, a union, or one no longer.

    Raises:
        NotFound: a row was removed.
    """
    named = [
        (f"controls.{number}", control, catalogue.controlnet(control.controlnet))
        for number, control in enumerate(controls)
    ]
    for path, control, row in named:
        if (misfit := row.misfit(model)) is not None:
            yield row.id, FieldProblem(f"{path}.controlnet", misfit)
        for problems in (_control_image_problems, _control_mode_problems):
            yield from ((row.id, problem) for problem in problems(path, control, row))
    first = named[0][2].id if named else ""
    for problem in _union_problems([entry for entry in named if not entry[2].is_t2i_adapter]):
        yield first, problem


def _control_image_problems(path: str, control: Control, row: ControlNetSpec) -> Iterator[FieldProblem]:
    if row.kind == "inpaint" and control.image is not None:
        yield FieldProblem(
            f"{path}.image", f"is not used: {row.id} reads the job's image and mask_image; remove it"
        )
    if row.kind != "inpaint" and control.image is None:
        yield FieldProblem(f"{path}.image", f"is required: {row.id} needs a control image")


def _control_mode_problems(path: str, control: Control, row: ControlNetSpec) -> Iterator[FieldProblem]:
    numbers = [f"{number} ({name})" for number, name in enumerate(row.modes)]
    if row.modes and control.mode is None:
        yield FieldProblem(f"{path}.mode", f"is required: {row.id} is a union of {len(numbers)} kinds", numbers)
    elif control.mode is not None and not row.modes:
        yield FieldProblem(f"{path}.mode", f"is not used: {row.id} has one kind of control; remove it")
    elif control.mode is not None and control.mode >= len(row.modes):
        yield FieldProblem(f"{path}.mode", f"must be a kind of {row.id}, got {control.mode}", numbers)


def _control_option_problems(
    path: str, control: Control, row: ControlNetSpec, models: Mapping[str, Preprocessor]
) -> Iterator[FieldProblem]:
    if control.preprocess is not None and row.kind == "inpaint":
        message = f"is not used: {row.id} reads the job's image and mask_image; remove it"
        yield FieldProblem(f"{path}.preprocess", message)
    else:
        options = control.preprocess_options or {}
        yield from preprocess_problems(f"{path}.", control.preprocess, options, models)
    if control.guidance_start >= control.guidance_end and row.family_spec.control_ranges:
        message = f"must be less than guidance_end ({control.guidance_end:g}), got {control.guidance_start:g}"
        yield FieldProblem(f"{path}.guidance_start", message, f"0 ≤ guidance_start < {control.guidance_end:g}")


def _control_range_problems(path: str, control: Control, row: ControlNetSpec) -> Iterator[FieldProblem]:
    """Yield bounds of the steps at which a ControlNet acts, where it always acts at all of them."""
    if not row.family_spec.control_ranges:
        yield from _bounds(path, control, f"is not supported by {row.family}, whose ControlNets act at every step")


def _bounds(path: str, control: Control, reason: str) -> Iterator[FieldProblem]:
    """Yield each bound of the steps at which a control is to act, with the reason why it cannot be one."""
    for field, whole in (("guidance_start", 0.0), ("guidance_end", 1.0)):
        if getattr(control, field) != whole:
            yield FieldProblem(f"{path}.{field}", f"{reason}; remove it", whole)


def _union_problems(named: Sequence[_Named]) -> Iterator[FieldProblem]:
    """Yield what cannot act together with a union that diffusers runs by pipelines for unions alone."""
    union = next((row for _, _, row in named if row.acts_with_unions_only), None)
    if union is None:
        return
    for path, _, row in named:
        if not row.acts_with_unions_only:
            message = (
                f"{row.id} cannot act beside {union.id}, which is a union: unions of {union.family} act beside "
                "other unions and T2I-Adapters; remove one of the two"
            )
            yield FieldProblem(f"{path}.controlnet", message)
    counts = Counter(row.id for _, _, row in named)
    for path, control, row in named:
        if counts[row.id] == 1:
            continue
        if len(counts) > 1:
            message = f"names {row.id} several times beside another: several kinds of a union act alone only"
            yield FieldProblem(f"{path}.controlnet", message)
        yield from _kind_problems(path, control, row)


def _kind_problems(path: str, control: Control, row: ControlNetSpec) -> Iterator[FieldProblem]:
    """Yield what one of several kinds of a union cannot have: they are one call of it, at every step."""
    together = f"with several kinds of one union, here {row.id}"
    if control.conditioning_scale == 0:
        message = f"must be greater than 0 {together}: this kind would still act in part; remove the control"
        yield FieldProblem(f"{path}.conditioning_scale", message, "greater than 0")
    yield from _bounds(path, control, f"is not supported {together}: they act at every step")
