"""The checks of a request for a control image that a model makes. Queues and stores nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.inputs.image import GivenImage
from app.limits.admission import Admission
from app.parsing.requests import Reading
from app.submission.checks import Delivery, RequestChecks
from app.submission.plain.networks import use_of
from contracts.catalogue.catalogue import Catalogue, PreprocessorSpec
from contracts.catalogue.rows.preprocessors import PREPROCESSORS, RESOLUTION
from contracts.errors import FieldProblem, InvalidRequest
from contracts.requests.images.preprocessing import (
    aspect_problem,
    map_size,
    option_problems,
    own_resolution,
    resolve_options,
)
from contracts.requests.plain.preprocessing import ControlImageRequest, PreprocessParameters


@dataclass(frozen=True)
class CheckedControlImage:
    """A request for a control image that passed every check."""

    parameters: PreprocessParameters
    delivery: Delivery
    counts: None = None

    def require_worker(self, admission: Admission) -> None:
        """Any worker can: models scale what they are given to a size of their own."""
        del admission


@dataclass(frozen=True)
class ControlImageDraft:
    """A request for a control image as it was read; `images` as in `JobDraft`."""

    reading: Reading[ControlImageRequest]
    images: Mapping[str, GivenImage] | None = field(default_factory=dict)

    def check(self, checks: RequestChecks) -> CheckedControlImage:
        """As in `Draft`."""
        catalogue = checks.services.catalogue
        delivery = checks.check_delivery(
            self.reading, self.images, lambda request: _check_preprocessor(catalogue, request)
        )
        request, image = self.reading.require(), delivery.images["image"].stored
        if (problem := aspect_problem("image", image.size)) is not None:
            raise InvalidRequest([problem])
        row = _find(catalogue, request.preprocess)
        options = resolve_options(row.preprocessor, request.preprocess_options, own_resolution(image.size))
        width, height = map_size(image.size, int(options[RESOLUTION.id]))
        parameters = PreprocessParameters(
            task=request.task,
            model=row.id,
            preprocess=row.id,
            preprocess_options=options,
            image=image.key,
            width=width,
            height=height,
            output_format=request.output_format,
            output_quality=request.output_quality,
            input_images=(use_of("image", image),),
        )
        return CheckedControlImage(parameters, delivery)


def _check_preprocessor(catalogue: Catalogue, request: ControlImageRequest) -> None:
    problems = list(
        option_problems("", _find(catalogue, request.preprocess).preprocessor, request.preprocess_options)
    )
    if problems:
        raise InvalidRequest(problems)


def _find(catalogue: Catalogue, id: str) -> PreprocessorSpec:
    """Return the row of a preprocessor.

    Raises:
        InvalidRequest: there is none, or it needs no model.
    """
    found = next((row for row in catalogue.preprocessors if row.id == id), None)
    if found is not None:
        return found
    if id in PREPROCESSORS:
        message = f"{id} needs no job: send only image, preprocess and preprocess_options to POST /v1/preprocess"
    else:
        message = f"unknown preprocessor {id[:64]!r}; GET /v1/preprocessors lists them"
    raise InvalidRequest([FieldProblem("preprocess", message, [row.id for row in catalogue.preprocessors])])
