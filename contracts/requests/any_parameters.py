"""The stored parameters of a job of any task, read by the task that they name.

A task with parameters of its own has its class here, and its value in `JobTask`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Tag

from contracts.requests.parameters import JobParameters
from contracts.requests.plain.erasing import EraseParameters
from contracts.requests.plain.preprocessing import PreprocessParameters
from contracts.requests.plain.upscaling import UpscaleParameters
from contracts.requests.task_parameters import JobTask
from contracts.requests.training.parameters import TrainingParameters

#: The kind of all tasks that run on diffusion models; unknown ones too, whose error then names the task.
_DIFFUSION = "diffusion"
_OTHERS = (JobTask.UPSCALE, JobTask.ERASE, JobTask.PREPROCESS, JobTask.TRAINING)


def _kind_of(value: object) -> str:
    task = value.get("task") if isinstance(value, Mapping) else getattr(value, "task", None)
    return str(task) if task in _OTHERS else _DIFFUSION


AnyParameters = Annotated[
    Annotated[JobParameters, Tag(_DIFFUSION)]
    | Annotated[UpscaleParameters, Tag(JobTask.UPSCALE.value)]
    | Annotated[EraseParameters, Tag(JobTask.ERASE.value)]
    | Annotated[PreprocessParameters, Tag(JobTask.PREPROCESS.value)]
    | Annotated[TrainingParameters, Tag(JobTask.TRAINING.value)],
    Discriminator(_kind_of),
]


def require_diffusion(parameters: AnyParameters) -> JobParameters:
    """The parameters of a job that is known to run on a diffusion model.

    Raises:
        TypeError: it does not.
    """
    if not isinstance(parameters, JobParameters):
        raise TypeError(f"{parameters.task} does not run on a diffusion model")
    return parameters
