"""The request of a control image that a model makes, and what is stored with its job. Knows no model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from contracts.requests.images.image_fields import SourceRef
from contracts.requests.plain.images import ImageFileFields, PlainImageParameters
from contracts.requests.schema import DeliveryFields
from contracts.requests.task_parameters import JobTask


class ControlImageRequest(DeliveryFields, ImageFileFields):
    """A control image that a model makes of an ordinary one, in a job: depths, a segmentation, a pose."""

    task: Literal[JobTask.PREPROCESS] = Field(JobTask.PREPROCESS, description="Selects this kind of request.")
    image: SourceRef
    preprocess: str = Field(
        min_length=1, description="Name from `/v1/preprocessors` of a preprocessor with `runs: job`."
    )
    preprocess_options: dict[str, float] = Field(
        default_factory=dict,
        max_length=16,
        description="Options by their names in `/v1/preprocessors`. Default `resolution`: the image's own.",
    )


class PreprocessParameters(PlainImageParameters):
    """Everything that shapes a control image that a model makes."""

    task: Literal[JobTask.PREPROCESS] = Field(description="Task of the request.")
    preprocess: str = Field(description="The preprocessor; the same as `model`.")
    preprocess_options: dict[str, float] = Field(description="All options that are used.")

    @property
    def expected_steps(self) -> int:
        """One call of the model."""
        return 1

    @property
    def needs(self) -> list[str]:
        """The preprocessor."""
        return [f"preprocessor:{self.model}"]

    @property
    def work(self) -> dict[str, Any]:
        """Predicted by the pixels of the control image."""
        return self.work_of(1, self.width * self.height)

    def for_log(self) -> dict[str, str | int]:
        """What a line of the log and a span say of it."""
        return self._log_fields(self.task.value)
