"""What requests and stored parameters have in common whose one image comes from a network without a prompt."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from contracts.left_out_fields import LeftOutIfEmpty
from contracts.requests.fields import DEFAULT_OUTPUT_QUALITY, OutputFormat
from contracts.requests.images.input_use import InputUse
from contracts.requests.strict_model import StrictModel


class ImageFileFields(StrictModel):
    """In which form the image comes."""

    output_format: OutputFormat = Field("png", description="File format of the image; `jpeg` has no transparency.")
    output_quality: int = Field(
        DEFAULT_OUTPUT_QUALITY,
        ge=1,
        le=100,
        description="Quality of the file, for `jpeg` and `webp` only; more is better and larger.",
    )


class PlainImageParameters(ImageFileFields):
    """The parameters of one image that is made of another one; tasks add their own. See `TaskParameters`."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field(description="Id of the network.")
    image: str = Field(description="Storage key of the image.")
    width: int = Field(description="Width of the image that is made, in pixels.")
    height: int = Field(description="Height of the image that is made, in pixels.")
    input_images: LeftOutIfEmpty[tuple[InputUse, ...]] = Field(
        (), description="What was done to each input image."
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
    def pixels(self) -> int:
        """Pixels of the image that is made."""
        return self.width * self.height

    @property
    def batchable(self) -> bool | None:
        """Its calls are made alone."""
        return False

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
        """The kind of step for which seconds are learned."""
        return ("step", self.model)

    def work_of(self, steps: int, pixels: float) -> dict[str, Any]:
        """`TaskParameters.work` of a job with so many steps, whose time follows from so many pixels."""
        return {
            "pace": f"{self.model} {self.width}x{self.height}",
            "model": self.model,
            "image_steps": steps,
            "megapixel_steps": pixels / 1e6,
            "images": 1,
            "joins": "",
        }

    def _log_fields(self, task: str) -> dict[str, str | int]:
        return {"model": self.model, "task": task, "width": self.width, "height": self.height, "images": 1}
