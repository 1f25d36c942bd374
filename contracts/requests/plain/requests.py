"""The requests of tasks that run on no diffusion model, by task."""

from __future__ import annotations

from contracts.requests.plain.erasing import EraseRequest
from contracts.requests.plain.preprocessing import ControlImageRequest
from contracts.requests.plain.upscaling import UpscaleRequest
from contracts.requests.schema import DeliveryFields
from contracts.requests.task_parameters import JobTask

PLAIN_REQUESTS: dict[JobTask, type[DeliveryFields]] = {
    JobTask.UPSCALE: UpscaleRequest,
    JobTask.ERASE: EraseRequest,
    JobTask.PREPROCESS: ControlImageRequest,
}
