"""The route that makes a control image and shows it. It queues and stores nothing."""

from __future__ import annotations

import base64
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.dependencies.bodies import JsonBodyDep
from app.dependencies.submissions import ChecksDep
from app.openapi.routes import problems, request_body
from app.parsing.requests import read
from contracts.requests.images.preprocess_request import PreprocessRequest
from contracts.requests.images.preprocessing import own_resolution, preprocess_problems, resolve_options

router = APIRouter(prefix="/v1", tags=["catalogue"])


class ControlImageView(BaseModel):
    """A control image."""

    object: Literal["control_image"] = Field(description="Always `control_image`.")
    preprocess: str = Field(description="The preprocessor.")
    preprocess_options: dict[str, float] = Field(
        description="All options that were used; a control that names the same ones uses exactly this image."
    )
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")
    sha256: str = Field(
        description="SHA-256 of the file; a job's receipt has it in the storage key of the control's `image`."
    )
    b64_json: str = Field(description="The control image, a PNG file in base64.")


@router.post(
    "/preprocess",
    name="create_control_image",
    openapi_extra=request_body(PreprocessRequest),
    responses=problems(400, 403, 408, 413, 415, 422, 429, 503),
)
def preprocess(body: JsonBodyDep, checks: ChecksDep) -> ControlImageView:
    """Make a control image of an ordinary one, as a control with the same `preprocess` and options does."""
    reading = read(PreprocessRequest, body.raw).with_problems(
        lambda request: list(preprocess_problems("", request.preprocess, request.preprocess_options))
    )
    request = reading.require()
    image = checks.inputs.find("image", request.image)
    options = resolve_options(request.preprocess, request.preprocess_options, own_resolution(image.stored.size))
    made = checks.inputs.make_map("image", image, request.preprocess, options)
    return ControlImageView(
        object="control_image",
        preprocess=request.preprocess,
        preprocess_options=options,
        width=made.width,
        height=made.height,
        sha256=made.sha256,
        b64_json=base64.b64encode(made.data).decode("ascii"),
    )
