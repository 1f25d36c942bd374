"""The request of a control image that is only shown. Its options are checked in `preprocessing.py`."""

from __future__ import annotations

from pydantic import Field

from contracts.requests.images.image_fields import ImageRef
from contracts.requests.strict_model import StrictModel


class PreprocessRequest(StrictModel):
    """An image, and what makes a control image of it; the fields are those of an entry of `controls`."""

    image: ImageRef = Field(description="The image, given in the same ways as the image of an img2img job.")
    preprocess: str = Field(description="Name from `/v1/preprocessors`.")
    preprocess_options: dict[str, float] = Field(
        default_factory=dict,
        max_length=16,
        description="Options of the preprocessor by their names in `/v1/preprocessors`. Default: the "
        "preprocessor's own, and the image's own size.",
    )
