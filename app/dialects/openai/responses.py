"""OpenAI Images answers: finished images, events, errors, made from our own. Does not parse requests."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Literal

from fastapi.responses import JSONResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from app.dialects.openai.batches.schema import BatchRequest
from app.dialects.openai.schema import ImageRequest
from app.error_handlers import Dialect, cut
from app.errors import Failure
from app.middleware.request_id import HEADER
from contracts.jobs.events import Preview
from contracts.jobs.records import JobRecord
from contracts.left_out_fields import OrLeftOut
from contracts.views.job import JobView

_QUALITIES = {"standard": "medium", "hd": "high"}


class ImageDatum(BaseModel):
    """An image, as bytes or URL, and its seed."""

    b64_json: OrLeftOut[str] = Field(None, description="The file in base64; left out with `response_format: url`.")
    url: OrLeftOut[str] = Field(
        None, description="Signed URL of the file; left out with `response_format: b64_json`."
    )
    seed: int = Field(description="Seed of this image.")


class ImagesAnswer(BaseModel):
    """The finished images of a call."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    created: int = Field(description="When the job ended, in Unix seconds.")
    background: Literal["opaque"] = Field("opaque", description="Always `opaque`.")
    data: list[ImageDatum] = Field(description="The images, in the order of their seeds.")
    output_format: str = Field(description="File format: `png`, `jpeg` or `webp`.")
    quality: OrLeftOut[str] = Field(
        None, description="`quality` of the request; left out where it had none, or `auto`."
    )
    size: str = Field(description="Size of the images in pixels: `WIDTHxHEIGHT`.")
    job: str = Field(description="Id of the job; `GET /v1/jobs/{id}` shows its receipt.")


class ErrorBody(BaseModel):
    """An error."""

    message: str = Field(description="What is wrong, and what is allowed.")
    type: str = Field(
        description="Kind of error, as OpenAI's clients know it: `invalid_request_error`, "
        "`authentication_error`, `rate_limit_error` or `server_error`."
    )
    param: str | None = Field(description="Field that caused it; null where no field did.")
    code: str = Field(description="Stable identifier of the error, for programs.")


class ErrorAnswer(BaseModel):
    """Error in OpenAI's format."""

    error: ErrorBody = Field(description="The error.")


def answer_images(quality: str | None, record: JobRecord, view: JobView) -> ImagesAnswer:
    """Return the answer for a completed job, and the quality that its request named."""
    is_url = record.response_format == "url"
    return ImagesAnswer(
        created=int(record.finished_at or record.created_at),
        data=[
            ImageDatum(b64_json=image.b64_json, url=image.url if is_url else None, seed=image.seed)
            for image in view.images
        ],
        output_format=record.parameters.output_format,
        quality=_quality(quality),
        size=_size(record),
        job=record.id,
    )


def partial_event(name: str, request: ImageRequest, record: JobRecord, preview: Preview, number: int) -> str:
    """Return a preview as an event, enlarged to the image's size and in the requested format."""
    with Image.open(io.BytesIO(base64.b64decode(preview.url.partition(",")[2]))) as small:
        size = (record.parameters.width, record.parameters.height)
        large = small.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    large.save(file, record.parameters.output_format.upper())
    image = base64.b64encode(file.getvalue()).decode("ascii")
    details = {"partial_image_index": number, "image_index": preview.index}
    return _event(f"{name}.partial_image", image, request, record, details)


def completed_events(name: str, request: ImageRequest, record: JobRecord, view: JobView) -> Iterator[str]:
    """Yield the finished images as the last events of a stream."""
    for index, image in enumerate(view.images):
        details = {"image_index": index, "seed": image.seed, "job": record.id}
        yield _event(f"{name}.completed", image.b64_json or "", request, record, details)


def _event(kind: str, image: str, request: ImageRequest, record: JobRecord, details: dict[str, Any]) -> str:
    data = {
        "type": kind,
        "b64_json": image,
        "background": "opaque",
        "created_at": int(time.time()),
        "output_format": record.parameters.output_format,
        "quality": _quality(request.quality) or "auto",
        "size": _size(record),
    }
    return _write(kind, data | details)


def error_event(failure: Failure) -> str:
    """Return the event that ends a stream with an error."""
    return _write("error", answer_failure(failure).model_dump())


def _write(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def _quality(quality: str | None) -> str | None:
    named = None if quality == "auto" else quality
    return None if named is None else _QUALITIES.get(named, named)


def _size(record: JobRecord) -> str:
    return f"{record.parameters.width}x{record.parameters.height}"


def answer_failure(failure: Failure) -> ErrorAnswer:
    """Return a failure in OpenAI's format."""
    status = failure.row.status
    kind = "invalid_request_error"
    if status == HTTPStatus.UNAUTHORIZED:
        kind = "authentication_error"
    elif status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = "rate_limit_error"
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = "server_error"
    first = failure.problems[0] if failure.problems else None
    message = failure.detail
    if first is not None and first.allowed is not None and len(failure.problems) == 1:
        message = f"{message} (allowed: {first.allowed})"  # OpenAI's format has no field for it
    param = None if first is None else first.field
    return ErrorAnswer(error=ErrorBody(message=cut(message), type=kind, param=param, code=failure.row.code))


def render_error(failure: Failure, request_id: str) -> JSONResponse:
    """Render a failure in OpenAI's format."""
    headers = {**failure.headers, HEADER: request_id}
    return JSONResponse(answer_failure(failure).model_dump(), failure.row.status, headers=headers)


#: By the paths of OpenAI's API.
OPENAI = (
    Dialect("/v1/images/", render_error, "application/json", ErrorAnswer),
    Dialect("/v1/files", render_error, "application/json", ErrorAnswer),
    Dialect("/v1/batches", render_error, "application/json", ErrorAnswer, (BatchRequest,)),
)
