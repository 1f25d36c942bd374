"""One table, domain error -> status and code, and its rendering as RFC 9457 problem+json.

Other dialects render the same `Failure`. Raises nothing; what a message says is the raiser's matter.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.auth import Forbidden, Unauthorized
from app.middleware.request_id import HEADER, request_id_of
from contracts.errors import (
    Conflict,
    DarkroomError,
    FieldProblem,
    Gone,
    ImageTooLarge,
    InvalidRequest,
    LinkRefused,
    NotAnImage,
    NotFound,
    QueueFull,
    RateExceeded,
    TooManyJobs,
    TryLater,
    Unavailable,
    UnreadableBody,
)
from contracts.weights.lora_files import AdapterRefused

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2
#: Bounds on what an answer repeats of what the client sent.
_MAX_PROBLEMS, _MAX_TEXT = 50, 1000


class BodyTooLarge(DarkroomError):
    """A body over the byte bound."""


class BodyTimeout(DarkroomError):
    """A body that did not come in time."""


class WrongMediaType(DarkroomError):
    """A content type that the call does not take."""


class JobDidNotComplete(DarkroomError):
    """A job that a client of a dialect waited for failed, or somebody cancelled it; `code` says why."""

    def __init__(self, message: str, code: str) -> None:
        self.code = code
        super().__init__(message)


class JobStillRuns(DarkroomError):
    """A job goes on, but its client is held no longer."""


class NotReady(DarkroomError):
    """The service would not serve a job now."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))


@dataclass(frozen=True)
class Row:
    """How one kind of error looks from outside; `code` is stable."""

    status: int
    code: str
    title: str


ROWS: Mapping[type[Exception], Row] = {
    UnreadableBody: Row(400, "unreadable_body", "The body cannot be read"),
    ClientDisconnect: Row(400, "unreadable_body", "The body ended early"),
    Unauthorized: Row(401, "unauthorized", "No API key that opens this"),
    Forbidden: Row(403, "forbidden", "The API key does not allow this"),
    LinkRefused: Row(403, "link_refused", "This link opens nothing"),
    Gone: Row(410, "gone", "It was here, and has expired"),
    NotFound: Row(404, "not_found", "There is no such thing"),
    BodyTimeout: Row(408, "body_timeout", "The body took too long"),
    Conflict: Row(409, "conflict", "Not in a state that allows this"),
    BodyTooLarge: Row(413, "body_too_large", "The body is too large"),
    ImageTooLarge: Row(413, "picture_too_large", "An image is too large"),
    NotAnImage: Row(415, "not_a_picture", "Not an image that can be read"),
    WrongMediaType: Row(415, "unsupported_media_type", "This content type is not taken here"),
    AdapterRefused: Row(422, "adapter_refused", "No LoRA that can be used here"),
    InvalidRequest: Row(422, "invalid_request", "The request cannot be run as it is"),
    RequestValidationError: Row(422, "invalid_request", "The request cannot be run as it is"),
    QueueFull: Row(429, "queue_full", "Too many jobs wait"),
    TooManyJobs: Row(429, "too_many_jobs", "Too many jobs of one API key"),
    RateExceeded: Row(429, "rate_exceeded", "Too many calls of one API key"),
    Unavailable: Row(503, "unavailable", "A part of the service is away"),
    NotReady: Row(503, "not_ready", "The service would not serve a job now"),
    JobDidNotComplete: Row(502, "job_failed", "The job did not complete"),
    JobStillRuns: Row(504, "still_running", "The job takes longer than a client is held"),
    Exception: Row(500, "internal", "The service failed"),
}


@dataclass(frozen=True)
class Failure:
    """An error as every dialect needs it: what the table says, what happened, and where."""

    row: Row
    detail: str
    problems: tuple[FieldProblem, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


class ProblemField(BaseModel):
    """One thing wrong with one field."""

    field: str = Field(description="path in the request's body, such as `controls.0.image`")
    message: str
    allowed: object = Field(
        None,
        description="values or range that would have been accepted",
        exclude_if=lambda value: value is None,
    )


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="stable; to be told apart by programs")
    errors: list[ProblemField]
    request_id: str


def describe(error: Exception) -> Failure:
    """Look an error up in the table."""
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        row = Row(error.status_code, phrase.lower().replace(" ", "_"), phrase)
        return Failure(row, str(error.detail), headers=error.headers or {})
    row = next(ROWS[kind] for kind in type(error).__mro__ if kind in ROWS)
    if row.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return Failure(row, "the reason is in the service's log, under this request_id")
    if isinstance(error, JobDidNotComplete):
        row = replace(row, code=error.code)
    if isinstance(error, RequestValidationError):
        problems = tuple(FieldProblem(".".join(map(str, item["loc"][1:])), item["msg"]) for item in error.errors())
        return Failure(row, "; ".join(f"{one.field}: {one.message}" for one in problems), problems)
    return Failure(row, str(error) or row.title, _problems_of(error), _headers_of(error, row))


def _headers_of(error: Exception, row: Row) -> dict[str, str]:
    """What a client is told beside the body: when to come back, or what to bring."""
    match error:
        case Unauthorized():
            return {"WWW-Authenticate": 'Bearer realm="darkroom"'}
        case Forbidden():
            return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{error.scope}"'}
        case TryLater():
            retry = {"Retry-After": str(error.retry_after_seconds)}
            if isinstance(error, RateExceeded):
                retry |= rate_headers(error.calls_per_minute, 0, error.retry_after_seconds)
            return retry
        case JobDidNotComplete() | JobStillRuns():
            return {"X-Should-Retry": "false"}  # OpenAI's clients would make the same job again and again
    is_away = row.status == HTTPStatus.SERVICE_UNAVAILABLE
    return {"Retry-After": str(RETRY_AFTER_SECONDS)} if is_away else {}


def rate_headers(calls_per_minute: int, remaining: int, reset_seconds: float) -> dict[str, str]:
    """What is left of a key's rate, and the seconds until it is a call more."""
    return {
        "X-RateLimit-Limit": str(calls_per_minute),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(math.ceil(reset_seconds)),
    }


def _problems_of(error: Exception) -> tuple[FieldProblem, ...]:
    if isinstance(error, InvalidRequest | NotReady):
        return error.problems
    if isinstance(error, ImageTooLarge | NotAnImage):
        return (error.problem,)
    return ()


def render_problem(failure: Failure, request_id: str) -> JSONResponse:
    """The native dialect's answer."""
    problem = Problem(
        type=f"urn:darkroom:problem:{failure.row.code}",
        title=failure.row.title,
        status=failure.row.status,
        detail=cut(failure.detail),
        code=failure.row.code,
        errors=[
            ProblemField(field=cut(one.field), message=cut(one.message), allowed=one.allowed)
            for one in failure.problems[:_MAX_PROBLEMS]
        ],
        request_id=request_id,
    )
    return JSONResponse(
        problem.model_dump(mode="json"),
        failure.row.status,
        headers={**failure.headers, HEADER: request_id},
        media_type="application/problem+json",
    )


def cut(text: str) -> str:
    """A text, no longer than an answer should repeat."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


@dataclass(frozen=True)
class Dialect:
    """How errors look below a path.

    Attributes:
        prefix: of the paths.
        render: (failure, the request's id) -> the answer.
        media_type, model: of the answer's body, for the document.
    """

    prefix: str
    render: Callable[[Failure, str], JSONResponse]
    media_type: str
    model: type[BaseModel]


NATIVE = Dialect("/", render_problem, "application/problem+json", Problem)


def dialect_of(path: str, dialects: Sequence[Dialect]) -> Dialect:
    """The dialect that is spoken at a path."""
    return next((one for one in dialects if path.startswith(one.prefix)), NATIVE)


async def answer(request: Request, error: Exception) -> JSONResponse:
    """What the client gets for any error, in the dialect of its path; a traceback goes to the log alone."""
    failure, request_id = describe(error), request_id_of(request)
    if failure.row.status == HTTPStatus.METHOD_NOT_ALLOWED:
        # The framework names the methods of the first route that it looked at.
        methods = await run_in_threadpool(request.app.methods_at, request.url.path)
        if methods:
            failure = replace(failure, headers={"Allow": ", ".join(methods)})
    if failure.row.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        # The server logs the traceback itself; this line ties it to the request.
        log.error("request %s: %s %s failed: %r", request_id, request.method, request.url.path, error)
    return dialect_of(request.url.path, request.app.state.dialects).render(failure, request_id)


def install(app: FastAPI, dialects: Sequence[Dialect]) -> None:
    """Make `answer` the handler of every error."""
    app.state.dialects = dialects
    for kind in (DarkroomError, HTTPException, RequestValidationError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, answer)
