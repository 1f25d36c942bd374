"""Checks at the start of a process that the defaults of each model are values that a request could give.

A default takes the place of a field that a request leaves out, so nothing would check it before the job is made: a
value out of range would be an error of every such request. Of checkpoints it reads what limits them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.lines import find_line
from contracts.catalogue.reader import read_catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError, InvalidRequest
from contracts.requests.checks.validation import check
from contracts.requests.fields import ImageFields, OptionalImages
from contracts.requests.schema import REQUESTS, Txt2ImgRequest
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from contracts.weights.vae_files import with_vaes

_PROMPT = "a"


def read_checked_catalogue(path: Path) -> Catalogue:
    """Read a catalogue file, and check its rows and their defaults; each with the limits of its checkpoint.

    Raises:
        CatalogueError: as `read_catalogue` says; or a default of a model is not what a request could ask for.
    """
    catalogue = with_vaes(with_checkpoint_limits(read_catalogue(path)))
    problems = [
        (index, f"models.{index} ({model.id}): {problem}")
        for index, model in enumerate(catalogue.models)
        for problem in _problems(model, catalogue)
    ]
    if problems:
        text = path.read_text(encoding="utf-8")
        lines = [find_line(text, ("models", index, "defaults")) for index, _ in problems]
        places = [f"{path}:{line}" if line else str(path) for line in lines]
        raise CatalogueError("; ".join(f"{at}: {why}" for at, (_, why) in zip(places, problems, strict=True)))
    return catalogue


def _problems(model: ModelSpec, catalogue: Catalogue) -> Iterator[str]:
    """Yield what a request would be refused for that gives the model's defaults itself."""
    defaults = {**model.family_spec.defaults, **model.defaults}
    unknown = sorted(set(model.refuses).difference(*(kind.model_fields for kind in REQUESTS.values())))
    if unknown:
        yield f"refuses names unknown fields: {', '.join(unknown)}"
    of_images = {name: value for name, value in defaults.items() if name in OptionalImages.model_fields}
    try:
        OptionalImages.model_validate(of_images, strict=True)
        others = {name: value for name, value in defaults.items() if name not in of_images}
        ImageFields.model_validate(others, strict=True)
    except ValidationError as error:
        for item in error.errors():
            yield f"defaults.{'.'.join(map(str, item['loc']))}: {item['msg']}, got {item['input']!r}"
        return
    sizes = {name: defaults[name] for name in ("width", "height")}
    lengths = {name: value for name, value in defaults.items() if name == "max_sequence_length"}
    lengths = {} if lengths.keys() & model.refused else lengths
    images = dict.fromkeys(model.family_spec.required_fields, "-")
    subject = model.family_spec.any_subject(_PROMPT)
    request = Txt2ImgRequest.model_validate({**subject, "model": model.id, **sizes, **lengths, **images})
    try:
        check(request, catalogue)
    except InvalidRequest as refused:
        # That a model makes no image from a text alone is not a mistake in its defaults.
        for problem in (problem for problem in refused.problems if problem.field != "model"):
            yield f"defaults.{problem.field} {problem.message}"
