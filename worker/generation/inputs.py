"""Reads the input images that jobs name from the storage, beside their prompts the inputs of a pipeline call."""

from __future__ import annotations

from collections.abc import Sequence

from contracts.errors import FailureCode, JobFailed, NotFound
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from worker.families import GenerationInputs, prompts_per_image
from worker.generation.images import read_image, read_mask


def read_inputs(jobs: Sequence[JobParameters], storage: Storage) -> GenerationInputs:
    """Return the inputs of jobs that share a pipeline call, scaled to the output's size.

    Raises:
        JobFailed: INPUT_MISSING: an image is no longer stored.
        Unavailable: the storage does not answer.
    """
    shared = jobs[0]
    size = (shared.width, shared.height)
    try:
        return GenerationInputs(
            job=shared,
            prompts=prompts_per_image(jobs),
            image=None if shared.image is None else read_image(storage.read(shared.image), size),
            mask=None if shared.mask_image is None else read_mask(storage.read(shared.mask_image), size),
            controls=[
                None if control.image is None else read_image(storage.read(control.image), size)
                for control in shared.controls
            ],
        )
    except NotFound as error:
        message = "an input image is no longer stored; upload it again"
        raise JobFailed(FailureCode.INPUT_MISSING, message) from error
