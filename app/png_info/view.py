"""The answer with the parameters of an image file. Reads nothing."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Program = Literal["darkroom", "a1111", "invokeai", "draw_things", "comfyui"]


class NotReadView(BaseModel):
    """Something that the file says and the request does not."""

    field: str = Field(description="Its name in the file; for files of this service, that of the request's field.")
    reason: str = Field(description="Why the request is without it.")


class ImageParameters(BaseModel):
    """The parameters of an image, as a request that can be sent to this service."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["image_parameters"] = Field("image_parameters", description="Always `image_parameters`.")
    program: Program | None = Field(
        description="Program that wrote the parameters; `a1111` also for others that write as it does; null where "
        "there are none that can be read."
    )
    request: dict[str, Any] | None = Field(
        description="Body for `POST /v1/jobs`, or for the route of its `task`; null where nothing can be read."
    )
    n: int | None = Field(
        description="Number of the image among those of the request, counted from 0; null without a request."
    )
    missing: list[str] = Field(
        description="Fields that you must add before sending it, such as `image`: the file does not have them."
    )
    not_read: list[NotReadView] = Field(description="What the file says and the request does not, up to 50.")
    texts: list[str] = Field(description="Names of the texts in the file; empty for a job.")
