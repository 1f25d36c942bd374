"""What was done to an input image of a job, for its receipt."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from contracts.requests.images.fit import Area, Fit, Size
from contracts.requests.strict_model import StrictModel


def _is_none(value: object) -> bool:
    return value is None


class InputUse(StrictModel):
    """An input image as it came, and what was done to it. What is absent did not have to be done."""

    model_config = ConfigDict(extra="ignore")

    field: str = Field(
        description="Its path in the request: `image`, `mask_image`, `control_image`, `controls.0.image`, "
        "`references.0`."
    )
    width: int = Field(description="Width in pixels, upright, as received.")
    height: int = Field(description="Height in pixels, upright, as received.")
    fit: Fit | None = Field(
        None, description="How it was brought to the output's size, or to `read_size`.", exclude_if=_is_none
    )
    read_size: Size | None = Field(
        None,
        description="Width and height in pixels at which the model reads it; absent: the output's.",
        exclude_if=_is_none,
    )
    crop: tuple[float, float, float, float] | None = Field(
        None,
        description="Left, upper, right and lower edge of the part that is used, in its own pixels.",
        exclude_if=_is_none,
    )
    area: Area | None = Field(
        None,
        description="What that part covers of that size: left, upper, right, lower, in pixels; the rest "
        "continues the edges.",
        exclude_if=_is_none,
    )
    color_profile: str | None = Field(
        None, description="What was done about its color profile.", exclude_if=_is_none
    )
    mask_source: str | None = Field(
        None, description="What was read as the mask, where that is not the brightness.", exclude_if=_is_none
    )
