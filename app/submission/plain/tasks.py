"""The tasks that run on no diffusion model: what their requests are, and how they are checked.

A new task is a line here. Its routes, `POST /v1/jobs` and reruns read this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.inputs.image import GivenImage
from app.parsing.requests import Reading
from app.submission.checks import Draft
from app.submission.plain.erasing import EraseDraft
from app.submission.plain.preprocessing import ControlImageDraft
from app.submission.plain.upscaling import UpscaleDraft
from contracts.requests.any_parameters import AnyParameters
from contracts.requests.plain.erasing import EraseParameters
from contracts.requests.plain.preprocessing import PreprocessParameters
from contracts.requests.plain.requests import PLAIN_REQUESTS
from contracts.requests.plain.upscaling import UpscaleParameters
from contracts.requests.schema import DeliveryFields
from contracts.requests.task_parameters import JobTask


@dataclass(frozen=True)
class PlainTask:
    """One task.

    Attributes:
        request: what its route is sent.
        parameters: what is stored with its jobs, whose fields have the names of those of the request.
        draft: makes its draft of a reading, and of images by field path.
        image_fields: those of its fields that name images, by storage keys in `parameters`.
        has_own_route: whether the route at its name also answers other requests, and so is written by hand.
    """

    request: type[DeliveryFields]
    parameters: type[AnyParameters]
    draft: Callable[[Reading[Any], Mapping[str, GivenImage]], Draft]
    image_fields: tuple[str, ...]
    has_own_route: bool = False


PLAIN_TASKS: Mapping[str, PlainTask] = {
    JobTask.UPSCALE: PlainTask(PLAIN_REQUESTS[JobTask.UPSCALE], UpscaleParameters, UpscaleDraft, ("image",)),
    JobTask.ERASE: PlainTask(PLAIN_REQUESTS[JobTask.ERASE], EraseParameters, EraseDraft, ("image", "mask_image")),
    JobTask.PREPROCESS: PlainTask(
        PLAIN_REQUESTS[JobTask.PREPROCESS],
        PreprocessParameters,
        ControlImageDraft,
        ("image",),
        has_own_route=True,
    ),
}
