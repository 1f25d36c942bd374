"""The fields of OpenAI Images requests: OpenAI's own, beside all of ours. Translates nothing.

A field of OpenAI's is another name for one of ours, or accepts the one value that is true here; anything else is
refused.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from contracts.requests.fields import Prompt
from contracts.requests.images.image_fields import (
    MAX_REFERENCES,
    FitField,
    ImageRef,
    MaskBlur,
    MaskCrop,
    ReferenceRef,
    Strength,
)
from contracts.requests.schema import JobRequest

_SIZE = re.compile(r"auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4}")
#: A size as people also write it: 64X64, 64×64, "64 x 64", 64*64, 64:64.
_LIKE_A_SIZE = re.compile(r"\s*([1-9][0-9]{0,4})\s*[xX×*:,]\s*([1-9][0-9]{0,4})\s*")


def _check_size(text: str) -> str:
    if _SIZE.fullmatch(text):
        return text
    alike = _LIKE_A_SIZE.fullmatch(text)
    example = "such as 64x64" if alike is None else f"here {alike[1]}x{alike[2]}"
    raise ValueError(f"must be auto, or width and height in pixels separated by a lowercase x, {example}")


Size = Annotated[str, AfterValidator(_check_size), Field(json_schema_extra={"pattern": f"^({_SIZE.pattern})$"})]


Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]
Identifier = Annotated[str, Field(max_length=512)]

#: Fields that are files in a form.
FILE_FIELDS = ("image", "mask")


class ImageRequest(JobRequest):
    """OpenAI's fields of both calls; all fields of our own tasks may be sent with them."""

    n: int | None = Field(
        None, ge=1, le=8, description="Number of images; another name for `num_images`. Default: 1."
    )
    size: Size | None = Field(
        None,
        description="`WIDTHxHEIGHT` in pixels; another name for `width` and `height`. Default and `auto`: the "
        "model's own size, or that of the image in an edit.",
    )
    quality: Quality | None = Field(
        None,
        description="Number of steps relative to the model's own: half of them for `low`, twice as many for "
        "`high` and `hd`, 3 times for `xhigh`, 4 times for `max`. Default: the model's own number.",
    )
    background: Literal["auto", "opaque"] | None = Field(
        None, description="Only for compatibility: images are always opaque."
    )
    moderation: Literal["auto", "low"] | None = Field(None, description="Only for compatibility, without effect.")
    output_compression: int | None = Field(
        None,
        ge=0,
        le=100,
        description="Quality of the files, for `jpeg` and `webp` only; another name for `output_quality`. "
        "Default: 95.",
    )
    response_format: Literal["url", "b64_json"] = Field(
        "b64_json", description="How images are returned: as base64, or as signed URLs."
    )
    user: Identifier | None = Field(
        None, description="Your own id of the end user; stored as `user` in the job's metadata. Default: none."
    )
    safety_identifier: Identifier | None = Field(
        None, description="Another name for `user`, which it takes precedence over. Default: none."
    )
    stream: bool | None = Field(None, description="Whether to answer with server-sent events. Default: false.")
    partial_images: int | None = Field(
        None, ge=0, le=10, description="Maximum number of previews of each image; only with `stream`. Default: 0."
    )


class GenerationRequest(ImageRequest):
    """An image from a prompt."""


class EditRequest(ImageRequest):
    """An image from a prompt and an image.

    Only what is transparent in the mask, or without a mask in the image, is regenerated; all of an opaque image
    without a mask is.
    """

    image: ImageRef
    mask: ImageRef | None = Field(
        None,
        description="Mask as large as `image`: transparent where the image is regenerated. Default: the "
        "transparent part of `image` is, or all of an opaque one.",
    )
    references: tuple[ReferenceRef, ...] | None = Field(
        None,
        max_length=MAX_REFERENCES - 1,
        description="Further images, for models with the task `edit`, of which `image` is the first reference, or "
        "with a mask the image that is edited. In a form, `image` may be sent several times instead. "
        "Default: none.",
    )
    input_fidelity: Literal["low"] | None = Field(
        None, description="Only for compatibility: to keep more of the image, lower `strength`."
    )
    strength: Strength | None = Field(
        None,
        description="How much `image` is changed: the fraction of the steps that is run. Default: the "
        "model's own, else 0.6; 1 with a mask, or if `image` has a transparent part.",
    )
    mask_blur: MaskBlur | None = None
    padding_mask_crop: MaskCrop | None = None
    fit: FitField | None = None

    @field_validator("image", mode="before")
    @classmethod
    def _image_is_one(cls, image: object) -> object:
        if isinstance(image, list):
            raise ValueError(f"must be one image, got {len(image)}; send those after the first as references")
        return image


class VariationRequest(EditRequest):
    """Other images like a given one, without a prompt."""

    prompt: Prompt = Field(" ", description="What the variations should show. Default: only `image` decides.")


def without_images(request: ImageRequest) -> ImageRequest:
    """The request as its answer needs it, without the memory of its images."""
    fields: dict[str, object] = dict.fromkeys(FILE_FIELDS, "") | {"references": None}
    return request.model_copy(update={name: fields[name] for name in fields if name in type(request).model_fields})
