"""Control images that a job makes itself, with preprocessors that are models: their options and sources.

Knows no images but by their sizes.
"""

from __future__ import annotations

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import InvalidRequest
from contracts.requests.images.preprocessing import aspect_problem, output_resolution, resolve_options
from contracts.requests.images.stored_image import StoredImages
from contracts.requests.parameters import JobParameters


def with_map_options(job: JobParameters, catalogue: Catalogue, images: StoredImages) -> JobParameters:
    """Return a job's parameters with all options of the preprocessors that run in it.

    Args:
        job: whose preprocessors passed `validation.check`.
        images: as for `contracts.requests.defaults.resolve`.

    Raises:
        InvalidRequest: an image is too long for a model.
    """
    if not job.controls:
        return job
    controls, problems = [], []
    for index, control in enumerate(job.controls):
        if control.preprocess is not None and control.is_made_in_job:
            field = f"controls.{index}.image"
            row, size = catalogue.preprocessor(control.preprocess).preprocessor, images[field].size
            problems.append(aspect_problem(field, size))
            resolution = output_resolution(size, (job.width, job.height), job.fit or "cover")
            options = resolve_options(row, control.preprocess_options or {}, resolution)
            control = control.model_copy(update={"preprocess_options": options})
        controls.append(control)
    found = [problem for problem in problems if problem is not None]
    if found:
        raise InvalidRequest(found)
    return job.model_copy(update={"controls": tuple(controls)})
