"""Errors as Hugging Face's inference services write them. Does not parse requests."""

from __future__ import annotations

from http import HTTPStatus

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.dialects.huggingface.requests import HuggingFaceRequest
from app.error_handlers import Dialect, cut
from app.errors import ROWS, Failure
from app.middleware.request_id import HEADER
from contracts.errors import QueueFull
from contracts.left_out_fields import OrLeftOut


class HuggingFaceError(BaseModel):
    """Error in Hugging Face's format."""

    error: str = Field(description="What is wrong, and what is allowed.")
    error_type: str = Field(description="Stable identifier of the error, for programs.")
    estimated_time: OrLeftOut[float] = Field(
        None, description="Seconds after which the same call may succeed; only with status 503."
    )


def render_error(failure: Failure, request_id: str) -> JSONResponse:
    """Render a failure in Hugging Face's format; a full queue is a service that is not ready yet."""
    status = failure.row.status
    if failure.row.code == ROWS[QueueFull].code:
        status = HTTPStatus.SERVICE_UNAVAILABLE
    is_temporary = status == HTTPStatus.SERVICE_UNAVAILABLE and "Retry-After" in failure.headers
    answer = HuggingFaceError(
        error=cut(_message_of(failure)),
        error_type=failure.row.code,
        estimated_time=float(failure.headers["Retry-After"]) if is_temporary else None,
    )
    headers = {**failure.headers, HEADER: request_id}
    return JSONResponse(answer.model_dump(mode="json"), status, headers=headers)


def _message_of(failure: Failure) -> str:
    """What is wrong, in which field, and what is allowed: the format has one text for all of it."""
    if len(failure.problems) != 1:
        return failure.detail
    (problem,) = failure.problems
    message = failure.detail if problem.field in failure.detail else f"{problem.field}: {failure.detail}"
    return message if problem.allowed is None else f"{message} (allowed: {problem.allowed})"


HUGGING_FACE = Dialect("/hf", render_error, "application/json", HuggingFaceError, (HuggingFaceRequest,))
