"""What was done to an input image of a job, for its receipt."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from contracts.left_out_fields import OrLeftOut
from contracts.requests.images.fit import Area, Fit, Size
from contracts.requests.strict_model import StrictModel


class InputUse(StrictModel):
    """An input image as it came, and what was done to it. What is absent did not have to be done."""

    model_config = ConfigDict(extra="ignore")

    field: str = Field(
        description="Its path in the request: `image`, `mask_image`, `control_image`, `controls.0.image`, "
        "`references.0`."
    )
    width: int = Field(description="Width in pixels, upright, as received.")
    height: int = Field(description="Height in pixels, upright, as received.")
    fit: OrLeftOut[Fit] = Field(None, description="How it was fitted to the output's size, or to `read_size`.")
    read_size: OrLeftOut[Size] = Field(
        None, description="Width and height in pixels at which the model reads it; absent: the output's."
    )
    crop: OrLeftOut[tuple[float, float, float, float]] = Field(
        None, description="Left, upper, right and lower edge of the part that is used, in its own pixels."
    )
    area: OrLeftOut[Area] = Field(
        None,
        description="What that part covers of that size: left, upper, right, lower, in pixels; the rest "
        "continues the edges.",
    )
    color_profile: OrLeftOut[str] = Field(None, description="How its color profile was handled.")
    mask_source: OrLeftOut[str] = Field(
        None, description="What was read as the mask, if that is not the brightness."
    )
