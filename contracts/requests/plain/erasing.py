"""The request of an image from which something is erased, and what is stored with its job. Knows no eraser."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from contracts.requests.images.image_fields import SourceRef
from contracts.requests.plain.images import ImageFileFields, PlainImageParameters
from contracts.requests.schema import DeliveryFields
from contracts.requests.task_parameters import JobTask

_EraseMaskRef = Annotated[
    str,
    Field(
        min_length=1,
        description="Mask as large as `image`: white is erased, black stays exactly as it is. It is given in the "
        "same ways as `image`.",
    ),
]


class EraseRequest(DeliveryFields, ImageFileFields):
    """An image without what a mask covers: its surroundings are continued, and the rest stays exactly as it is."""

    task: Literal[JobTask.ERASE] = Field(JobTask.ERASE, description="Selects this kind of request.")
    model: str | None = Field(
        None, description="Id from `/v1/erasers`. Default: the first of that list, which is the catalogue's."
    )
    image: SourceRef
    mask_image: _EraseMaskRef


class EraseParameters(PlainImageParameters):
    """Everything that shapes an image from which something is erased."""

    task: Literal[JobTask.ERASE] = Field(description="Task of the request.")
    mask_image: str = Field(description="Storage key of the mask.")

    @property
    def inputs(self) -> list[str]:
        """The image and the mask."""
        return list(dict.fromkeys((self.image, self.mask_image)))

    @property
    def expected_steps(self) -> int:
        """One call of the network, as usage counts it; its progress has more steps."""
        return 1

    @property
    def needs(self) -> list[str]:
        """The eraser."""
        return [f"eraser:{self.model}"]

    @property
    def work(self) -> dict[str, Any]:
        """Predicted by the pixels of the image."""
        return self.work_of(1, self.width * self.height)

    def for_log(self) -> dict[str, str | int]:
        """What a line of the log and a span say of it."""
        return self._log_fields(self.task.value)
