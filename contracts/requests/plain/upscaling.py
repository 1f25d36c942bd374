"""The request of an upscaled image, and what is stored with its job. Knows no upscaler."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from contracts.requests.images.image_fields import SourceRef
from contracts.requests.plain.images import ImageFileFields, PlainImageParameters
from contracts.requests.schema import DeliveryFields
from contracts.requests.task_parameters import JobTask

#: Side of the squares of an image that an upscaler is given at once, which predictions count as steps.
NOMINAL_TILE_SIDE = 256


class UpscaleRequest(DeliveryFields, ImageFileFields):
    """A larger image with the same content; its transparency is kept."""

    task: Literal[JobTask.UPSCALE] = Field(JobTask.UPSCALE, description="Selects this kind of request.")
    model: str | None = Field(
        None, description="Id from `/v1/upscalers`. Default: the first of that list, which is the catalogue's."
    )
    image: SourceRef


class UpscaleParameters(PlainImageParameters):
    """Everything that shapes an upscaled image."""

    task: Literal[JobTask.UPSCALE] = Field(description="Task of the request.")
    scale: int = Field(description="How many times as wide and high as the input the image is.")

    @property
    def expected_steps(self) -> int:
        """Tiles of the usual size."""
        width, height = self.width // self.scale, self.height // self.scale
        return -(-width // NOMINAL_TILE_SIDE) * -(-height // NOMINAL_TILE_SIDE)

    @property
    def needs(self) -> list[str]:
        """The upscaler."""
        return [f"upscaler:{self.model}"]

    @property
    def work(self) -> dict[str, Any]:
        """Predicted by the pixels of the input."""
        return self.work_of(self.expected_steps, self.width * self.height / self.scale**2)

    def for_log(self) -> dict[str, str | int]:
        """What a line of the log and a span say of it."""
        return self._log_fields(self.task.value)
