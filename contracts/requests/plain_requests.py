"""The requests of tasks that run on no diffusion model, by task."""

from __future__ import annotations

from contracts.requests.erasing import EraseRequest
from contracts.requests.schema import DeliveryFields
from contracts.requests.task_parameters import JobTask
from contracts.requests.upscaling import UpscaleRequest

PLAIN_REQUESTS: dict[JobTask, type[DeliveryFields]] = {
    JobTask.UPSCALE: UpscaleRequest,
    JobTask.ERASE: EraseRequest,
}
