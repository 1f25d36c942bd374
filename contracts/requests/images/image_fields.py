"""The types of the fields that name input images, masks and references, and say how they are used.

`fields.py` and the requests declare fields of these types. Knows nothing of where images are.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from contracts.requests.images.fit import Fit

DEFAULT_STRENGTH, DEFAULT_MASK_BLUR = 0.6, 0
DEFAULT_FIT: Fit = "cover"

#: How a request names an image. Stored parameters hold a storage key in its place.
ImageRef = Annotated[
    str,
    Field(
        min_length=1,
        description="The image that the result starts from: `upload:ID` of an upload, `job:ID/N` for image N of a "
        "finished job, a `data:` URL, base64, or, where the operator allows it, an `https:` URL.",
    ),
]
#: The image of a task that changes nothing but what it says.
SourceRef = Annotated[
    str,
    Field(
        min_length=1,
        description="The image: `upload:ID` of an upload, `job:ID/N` for image N of a finished job, a `data:` "
        "URL, base64, or, where the operator allows it, an `https:` URL.",
    ),
]
#: The most reference images that any request may have; a model's own limit may be lower.
MAX_REFERENCES = 16
ReferenceRef = Annotated[
    str,
    Field(
        min_length=1,
        description="A reference image, given in the same ways as the image of an img2img job.",
    ),
]
References = Annotated[
    tuple[ReferenceRef, ...],
    Field(
        min_length=1,
        max_length=MAX_REFERENCES,
        description="Reference images in their order; `/v1/models/{id}` says how many a model takes and "
        "how it uses them. Each is read at its own size, with both sides rounded down to a "
        "multiple of what the model needs, as `fit` says; one with more pixels than the "
        "model generates is scaled down to the number that the model generates by default. "
        "Qwen-Image's edits scale each to about a megapixel instead. The receipt has both "
        "sizes.",
    ),
]
MaskRef = Annotated[
    str,
    Field(
        min_length=1,
        description="Mask as large as `image`: white is regenerated, black is kept. It is given in the same ways "
        "as `image`.",
    ),
]
ImagePromptRef = Annotated[
    str, Field(min_length=1, description="A reference image, given in the same ways as `image` of an img2img job.")
]
ImagePromptMaskRef = Annotated[
    str,
    Field(
        min_length=1,
        description="Mask of any size, stretched to the output's: white is where the references act. It is given "
        "in the same ways as an image.",
    ),
]
ControlRef = Annotated[
    str,
    Field(
        min_length=1,
        description="Control image for checkpoints that require one, such as FLUX.1 Canny and Depth: "
        "contours or a depth map; `POST /v1/preprocess` makes contours. It is given in the "
        "same ways as the image of an img2img job.",
    ),
]
Strength = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="How much `image` is changed: the fraction of the steps that is run. 1 ignores the image. "
        f"Default: the model's own, such as 1 for FLUX.1 Fill, else {DEFAULT_STRENGTH}.",
    ),
]
MaskBlur = Annotated[
    int,
    Field(
        ge=0,
        le=64,
        description=f"Radius in pixels by which the edge of the mask is blurred. Default: {DEFAULT_MASK_BLUR}.",
    ),
]
MaskCrop = Annotated[
    int,
    Field(
        ge=0,
        le=512,
        description="Generate only the bounding box of the mask, with this many pixels around it, at full "
        "resolution. Default: the whole image is generated.",
    ),
]


_FIT_DESCRIPTION = (
    "How input images with another aspect ratio than the output fill it; a mask is fitted like `image`. "
    "`cover` cuts off the excess. `contain` shows all of the image: width and height are maximums, and the "
    "output has the image's aspect ratio. `pad` shows all of it in the middle of an output of exactly width × "
    "height; its edges are continued into the rest, which is regenerated in an inpaint. `stretch` changes the "
    "aspect ratio. Default: `cover`."
)


FitField = Annotated[Fit, Field(description=_FIT_DESCRIPTION)]
