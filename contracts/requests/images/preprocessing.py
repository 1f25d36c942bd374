"""The preprocessor of a control: checks of its options, and their values once the output's size is known.

Makes no image: the API's decoder processes do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from contracts.catalogue.rows.preprocessors import (
    MAX_MAP_PIXELS,
    MAX_MAP_SIDE,
    MAX_RESOLUTION,
    MIN_RESOLUTION,
    PREPROCESSORS,
    RESOLUTION,
    Preprocessor,
    PreprocessorOption,
)
from contracts.errors import FieldProblem
from contracts.requests.images.fit import Fit, Size

#: Option -> its value.
Options = Mapping[str, float]
#: Longer side of an image by its shorter one: models are trained on squares, and scale long images up.
_MAX_ASPECT = 8


def preprocess_problems(
    path: str, name: str | None, options: Options, models: Mapping[str, Preprocessor] = MappingProxyType({})
) -> Iterator[FieldProblem]:
    """Yield what is wrong with a preprocessor and its options.

    Args:
        path: beginning of the fields' paths: empty, or `controls.0.`.
        name: None where none is named.
        models: preprocessors that are models, by their names; empty where none can run.
    """
    every = {**PREPROCESSORS, **models}
    if name is None:
        if options:
            message = "need a preprocessor: name one in preprocess, or remove them"
            yield FieldProblem(f"{path}preprocess_options", message, list(every))
        return
    row = every.get(name)
    if row is None:
        message = f"unknown preprocessor {name[:64]!r}; GET /v1/preprocessors lists them"
        yield FieldProblem(f"{path}preprocess", message, list(every))
        return
    wrong = False
    for problem in option_problems(path, row, options):
        wrong = True
        yield problem
    values = _values(row, options)
    if not wrong and values.get("low_threshold", 0) > values.get("high_threshold", math.inf):
        low, high = values["low_threshold"], values["high_threshold"]
        field = "low_threshold" if "low_threshold" in options else "high_threshold"
        message = f"low_threshold must be at most high_threshold, got {low:g} and {high:g}"
        yield FieldProblem(f"{path}preprocess_options.{field}", message, "low_threshold ≤ high_threshold")


def aspect_problem(field: str, size: Size) -> FieldProblem | None:
    """Why an image is too long for a preprocessor that is a model; None: it is not."""
    if max(size) <= _MAX_ASPECT * min(size):
        return None
    message = f"is {size[0]} × {size[1]}, and one side may be {_MAX_ASPECT} times the other: crop it"
    return FieldProblem(field, message, f"longer side ≤ {_MAX_ASPECT} × shorter side")


def option_problems(path: str, row: Preprocessor, options: Options) -> Iterator[FieldProblem]:
    """Yield what is wrong with each option of a preprocessor by itself; `path` as in `preprocess_problems`."""
    for id, value in options.items():
        field, option = f"{path}preprocess_options.{id[:64]}", row.option(id)
        if option is None:
            message = f"is not an option of {row.id}; remove it"
            yield FieldProblem(field, message, [known.id for known in row.options])
        elif (reason := _misfit(option, value)) is not None:
            yield FieldProblem(field, reason, option.range)


def resolve_options(row: Preprocessor, options: Options, resolution: int) -> dict[str, float]:
    """Return the value of every option of a preprocessor; `resolution` is used where none is given."""
    return _values(row, {RESOLUTION.id: resolution, **options})


def own_resolution(image: Size) -> int:
    """Return the resolution at which a control image is as large as its image, as nearly as is allowed."""
    return _within(min(image))


def output_resolution(image: Size, output: Size, fit: Fit) -> int:
    """Return the resolution at which a control image needs no scaling to fill the output.

    Lines keep the width that a detector gives them, which ControlNets are trained on.
    """
    scales = [after / before for after, before in zip(output, image, strict=True)]
    scale = max(scales) if fit in ("cover", "stretch") else min(scales)
    return _within(round(min(image) * scale))


def map_size(image: Size, resolution: int) -> Size:
    """Return the size of a control image: its shorter side is the resolution, unless it would be too large."""
    scale = min(
        resolution / min(image), math.sqrt(MAX_MAP_PIXELS / (image[0] * image[1])), MAX_MAP_SIDE / max(image)
    )
    width, height = (max(1, round(side * scale)) for side in image)
    return width, height


def _within(resolution: int) -> int:
    return min(max(resolution, MIN_RESOLUTION), MAX_RESOLUTION)


def _misfit(option: PreprocessorOption, value: float) -> str | None:
    """Return why an option cannot have a value; None: it can."""
    if not option.minimum <= value <= option.maximum:
        return f"must be within {option.range}, got {value:.10g}"
    if option.is_integer and value != int(value):
        return f"must be a whole number within {option.range}, got {value:.10g}"
    return None


def _values(row: Preprocessor, options: Options) -> dict[str, float]:
    """Return the value of every option that has one, whole ones as integers."""
    values = {option.id: options.get(option.id, option.default) for option in row.options}
    whole = {option.id for option in row.options if option.is_integer}
    return {id: int(value) if id in whole else value for id, value in values.items() if value is not None}
