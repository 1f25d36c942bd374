"""One table from error to HTTP status, code and title. The text of an error is written where the error is raised.

Knows no dialect: `error_handlers.py` and `dialects/` render the same `Failure`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.wording import word_error
from contracts.errors import (
    AdapterDamaged,
    AdapterRefused,
    Conflict,
    DailyLimitReached,
    DarkroomError,
    FieldProblem,
    Gone,
    ImageTooLarge,
    InvalidRequest,
    LinkRefused,
    ModelUnavailable,
    NotAnImage,
    NotFound,
    QueueFull,
    QuotaExceeded,
    RateExceeded,
    RecordQuotaExceeded,
    StorageFull,
    TooManyImages,
    TooManyJobs,
    TryLater,
    Unavailable,
    UnreadableBody,
)
from contracts.storage.local import FULL

RETRY_AFTER_SECONDS = 2
#: The same where something is full: it takes a sweep, or a person, to change that.
FULL_SECONDS = 60


class Unauthorized(DarkroomError):
    """A request without credentials, or with an API key that is unknown or revoked."""


class Forbidden(DarkroomError):
    """A request whose API key lacks a scope."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__(f"this call needs an API key with the scope {scope}, and this key lacks it")


class HostRefused(DarkroomError):
    """A request for a host that this service is not."""


class OriginRefused(DarkroomError):
    """A request from a web page of another origin."""


class BodyTooLarge(DarkroomError):
    """A request body over the size limit."""


class BodyTimeout(DarkroomError):
    """A request body that did not arrive within the time limit."""


class Busy(TryLater):
    """A limit on what the process does at one time; other calls may still succeed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, RETRY_AFTER_SECONDS)


class WrongMediaType(DarkroomError):
    """A request body of a content type that the route does not accept."""


class UnknownCoding(WrongMediaType):
    """A request body with a content coding that the service does not unpack."""


class ClientLeft(Exception):  # no response can be sent
    """A client that closed its connection while it waited for its job."""


class JobDidNotComplete(DarkroomError):
    """A job that failed or was cancelled while a client of another dialect waited for it; `code` says why."""

    def __init__(self, message: str, code: str) -> None:
        self.code = code
        super().__init__(message)


class JobStillRuns(DarkroomError):
    """A job that has not ended when its client's time to wait is over; the job goes on."""


class NotReady(DarkroomError):
    """A service that could not run a job now; the problems name what is missing."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))


@dataclass(frozen=True)
class Row:
    """HTTP side of one kind of error; `code` is stable."""

    status: int
    code: str
    title: str


ROWS: Mapping[type[Exception], Row] = {
    UnreadableBody: Row(400, "unreadable_body", "Unreadable body"),
    ClientDisconnect: Row(400, "unreadable_body", "Incomplete body"),
    Unauthorized: Row(401, "unauthorized", "Unauthorized"),
    Forbidden: Row(403, "forbidden", "Forbidden"),
    OriginRefused: Row(403, "origin_refused", "Origin refused"),
    LinkRefused: Row(403, "link_refused", "Invalid or expired link"),
    NotFound: Row(404, "not_found", "Not found"),
    BodyTimeout: Row(408, "body_timeout", "Request timeout"),
    Conflict: Row(409, "conflict", "Conflict"),
    Gone: Row(410, "gone", "Expired"),
    BodyTooLarge: Row(413, "body_too_large", "Body too large"),
    ImageTooLarge: Row(413, "picture_too_large", "Image too large"),
    NotAnImage: Row(415, "not_a_picture", "Not an image"),
    WrongMediaType: Row(415, "unsupported_media_type", "Unsupported media type"),
    UnknownCoding: Row(415, "unsupported_media_type", "Unsupported content coding"),
    HostRefused: Row(421, "host_refused", "Host refused"),
    AdapterDamaged: Row(422, "adapter_refused", "Damaged adapter file"),
    AdapterRefused: Row(422, "adapter_refused", "Unusable adapter file"),
    InvalidRequest: Row(422, "invalid_request", "Invalid request"),
    RequestValidationError: Row(422, "invalid_request", "Invalid request"),
    QueueFull: Row(429, "queue_full", "Queue full"),
    DailyLimitReached: Row(429, "daily_limit_reached", "Daily limit reached"),
    TooManyJobs: Row(429, "too_many_jobs", "Too many jobs"),
    RateExceeded: Row(429, "rate_exceeded", "Too many requests"),
    Exception: Row(500, "internal", "Internal server error"),
    JobDidNotComplete: Row(502, "job_failed", "Job failed"),
    Unavailable: Row(503, "unavailable", "Service unavailable"),
    TooManyImages: Row(503, "too_many_images", "Too many images"),
    ModelUnavailable: Row(503, "model_unavailable", "Model unavailable"),
    Busy: Row(503, "busy", "Service busy"),
    NotReady: Row(503, "not_ready", "Not ready"),
    QuotaExceeded: Row(507, "quota_exceeded", "Storage quota exceeded"),
    RecordQuotaExceeded: Row(507, "quota_exceeded", "Memory quota exceeded"),
    StorageFull: Row(507, "storage_full", "Storage full"),
    JobStillRuns: Row(504, "still_running", "Job still running"),
}


@dataclass(frozen=True)
class Failure:
    """An error as every dialect renders it: its row of the table, what happened, and in which fields."""

    row: Row
    detail: str
    problems: tuple[FieldProblem, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


def describe(error: Exception) -> Failure:
    """Look an error up in the table."""
    if isinstance(error, OSError) and error.errno in FULL:
        error = StorageFull("a disk of the service is full; try again later")
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        row = Row(error.status_code, phrase.lower().replace(" ", "_"), phrase)
        return Failure(row, str(error.detail), headers=error.headers or {})
    row = next(ROWS[kind] for kind in type(error).__mro__ if kind in ROWS)
    if row.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return Failure(row, "unexpected error; the service's log has the details under this request_id")
    if isinstance(error, JobDidNotComplete):
        row = replace(row, code=error.code)
    if isinstance(error, RequestValidationError):
        problems = tuple(
            FieldProblem(".".join(map(str, item["loc"][1:])), word_error(item)) for item in error.errors()
        )
        return Failure(row, "; ".join(f"{problem.field}: {problem.message}" for problem in problems), problems)
    return Failure(row, str(error) or row.title, _problems_of(error), _headers_of(error, row))


def _headers_of(error: Exception, row: Row) -> dict[str, str]:
    """Response headers of an error: when to retry, or which credentials to send."""
    match error:
        case Unauthorized():
            return {"WWW-Authenticate": 'Bearer realm="darkroom"'}
        case Forbidden():
            return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{error.scope}"'}
        case UnknownCoding():
            return {"Accept-Encoding": "gzip"}  # as RFC 9110 asks for, 15.5.16
        case TryLater():
            retry = {"Retry-After": str(error.retry_after_seconds)}
            if isinstance(error, RateExceeded):
                retry |= rate_headers(error.calls_per_minute, 0, error.retry_after_seconds)
            return retry
        case QuotaExceeded():
            return {"X-Should-Retry": "false"}  # OpenAI's clients would send the same call again, at once
        case JobDidNotComplete() | JobStillRuns():
            return {"X-Should-Retry": "false"}  # OpenAI's clients would submit the same job again
    if row.status == HTTPStatus.INSUFFICIENT_STORAGE:
        return {"Retry-After": str(FULL_SECONDS)}
    if row.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return {}


def rate_headers(calls_per_minute: int, remaining: int, reset_seconds: float) -> dict[str, str]:
    """Rate limit headers: the limit, the calls left of it, and the seconds until one more call is allowed."""
    return {
        "X-RateLimit-Limit": str(calls_per_minute),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(math.ceil(reset_seconds)),
    }


def _problems_of(error: Exception) -> tuple[FieldProblem, ...]:
    if isinstance(error, InvalidRequest | NotReady):
        return error.problems
    if isinstance(error, ImageTooLarge | NotAnImage | ModelUnavailable):
        return (error.problem,)
    return ()
