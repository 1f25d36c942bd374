"""The request of an upscaled image, and what is stored with its job. Knows no upscaler."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from contracts.requests.fields import DEFAULT_OUTPUT_QUALITY, OutputFormat, StrictModel
from contracts.requests.images.image_fields import SourceRef
from contracts.requests.images.input_use import InputUse
from contracts.requests.schema import DeliveryFields
from contracts.requests.task_parameters import JobTask

#: Side of the squares of an image that an upscaler is given at once, which predictions count as steps.
NOMINAL_TILE_SIDE = 256


class ImageFileFields(StrictModel):
    """In which form the images of a task come that has no fields of diffusion models."""

    output_format: OutputFormat = Field("png", description="File format of the image; `jpeg` has no transparency.")
    output_quality: int = Field(
        DEFAULT_OUTPUT_QUALITY,
        ge=1,
        le=100,
        description="Quality of the file, for `jpeg` and `webp` only; more is better and larger.",
    )


class UpscaleRequest(DeliveryFields, ImageFileFields):
    """A larger image with the same content; its transparency is kept."""

    task: Literal[JobTask.UPSCALE] = Field(JobTask.UPSCALE, description="Selects this kind of request.")
    model: str | None = Field(
        None, description="Id from `/v1/upscalers`. Default: the first of that list, which is the catalogue's."
    )
    image: SourceRef


class UpscaleParameters(ImageFileFields):
    """Everything that shapes an upscaled image."""

    model_config = ConfigDict(extra="ignore")

    task: Literal[JobTask.UPSCALE] = Field(description="Task of the request.")
    model: str = Field(description="Id of the upscaler.")
    image: str = Field(description="Storage key of the image.")
    scale: int = Field(description="How many times as wide and high as the input the image is.")
    width: int = Field(description="Width of the image in pixels.")
    height: int = Field(description="Height of the image in pixels.")
    input_images: tuple[InputUse, ...] = Field(
        (), description="What was done to the input image.", exclude_if=lambda uses: not uses
    )

    @property
    def seed(self) -> int:
        """Nothing is drawn."""
        return 0

    @property
    def seeds(self) -> list[int | None]:
        """Nothing is drawn."""
        return [None]

    @property
    def private_texts(self) -> list[str]:
        """It has no texts."""
        return []

    @property
    def num_images(self) -> int:
        """One image."""
        return 1

    @property
    def batchable(self) -> bool | None:
        """Its calls are made alone."""
        return False

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
    def inputs(self) -> list[str]:
        """The image."""
        return [self.image]

    @property
    def max_result_bytes(self) -> int:
        """Four bytes for each pixel, and some for metadata."""
        return self.width * self.height * 4 + 2**16

    @property
    def record_version(self) -> int:
        """Earlier releases know no task without a prompt."""
        return 3

    @property
    def step_kind(self) -> tuple[object, ...]:
        """As in `TaskParameters`."""
        return ("tile", self.model)

    @property
    def work(self) -> dict[str, Any]:
        """As in `TaskParameters`; predicted by input pixels, whose cost hardly depends on the image's size."""
        steps = self.expected_steps
        return {
            "pace": f"{self.model} {self.width}x{self.height}",
            "model": self.model,
            "image_steps": steps,
            "megapixel_steps": self.width * self.height / self.scale**2 / 1e6,
            "images": 1,
            "joins": "",
        }

    def for_log(self) -> dict[str, str | int]:
        """As in `TaskParameters`."""
        size = {"width": self.width, "height": self.height}
        return {"model": self.model, "task": self.task.value, **size, "images": 1}
