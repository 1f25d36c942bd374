"""The domain's errors. They carry data, not HTTP statuses: `app/errors.py` maps them, the worker records them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class DarkroomError(Exception):
    """Root of all errors that Darkroom raises on purpose."""


@dataclass(frozen=True)
class FieldProblem:
    """One thing wrong with one field of a request.

    Attributes:
        field: path of the field in the client's body, such as `controls.0.image`.
        message: what was wrong and what to do about it, one sentence.
        allowed: the values or the range that would have been accepted; None where there is no list.
    """

    field: str
    message: str
    allowed: object = None


class InvalidRequest(DarkroomError):
    """A request that no worker may see. Raised before anything is queued or stored."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))


class UnreadableBody(DarkroomError):
    """The body is not what its content type says."""


class ImageTooLarge(DarkroomError):
    """An image over the byte or the pixel bound; found from its header, before decoding."""

    def __init__(self, field: str, message: str, allowed: object) -> None:
        self.problem = FieldProblem(field, message, allowed)
        super().__init__(message)


class NotAnImage(DarkroomError):
    """Bytes that are no image, a truncated one, or one of a format that is not accepted."""

    def __init__(self, field: str, message: str) -> None:
        self.problem = FieldProblem(field, message, ["png", "jpeg", "webp", "gif", "bmp", "tiff"])
        super().__init__(message)


class LinkRefused(DarkroomError):
    """A signed link that was changed, or whose time is over."""


class NotFound(DarkroomError):
    """An id that names nothing (or nothing that the caller may see)."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        super().__init__(f"there is no {kind} {name!r}")


class Gone(NotFound):
    """A job that was here and has expired; `owner` is whose it was."""

    def __init__(self, kind: str, name: str, owner: str) -> None:
        super().__init__(kind, name)
        self.owner = owner
        self.args = (f"{kind} {name!r} has expired",)


class Conflict(DarkroomError):
    """The object is not in a state that allows the call."""


class TryLater(DarkroomError):
    """Too much at this time; the same call may be taken after `retry_after_seconds`."""

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{message}; try again in {retry_after_seconds} s")


class QueueFull(TryLater):
    """So many jobs wait that no more are taken."""

    def __init__(self, max_waiting: int, retry_after_seconds: int) -> None:
        super().__init__(f"{max_waiting} jobs wait, and no more are taken", retry_after_seconds)


class TooManyJobs(TryLater):
    """So many jobs of one API key wait or run that no more of it are taken."""

    def __init__(self, max_jobs: int, retry_after_seconds: int) -> None:
        super().__init__(
            f"{max_jobs} jobs of this API key wait or run, and it may have no more", retry_after_seconds
        )


class RateExceeded(TryLater):
    """An API key has used its calls up; `calls_per_minute` is how many it has."""

    def __init__(self, calls_per_minute: int, retry_after_seconds: int) -> None:
        self.calls_per_minute = calls_per_minute
        super().__init__(
            f"this API key may make {calls_per_minute} calls in a minute, and has made them", retry_after_seconds
        )


class Unavailable(DarkroomError):
    """Redis or the storage does not answer; the call may be repeated."""


class SettingsError(DarkroomError):
    """A setting that cannot be used."""


class DestinationRefused(DarkroomError):
    """An address that the service does not connect to; the message completes a sentence about the field."""


class DestinationUnknown(DarkroomError):
    """A name without an address; `is_final` where that is sure, and not only so at the moment."""

    def __init__(self, message: str, *, is_final: bool) -> None:
        self.is_final = is_final
        super().__init__(message)


class CatalogueError(DarkroomError):
    """The catalogue file does not say what it must."""


class FailureCode(StrEnum):
    """Stable codes of a job that ended `failed`; documented in the HTTP contract."""

    OUT_OF_MEMORY = "out_of_memory"
    MODEL_LOAD_FAILED = "model_load_failed"
    LORA_INCOMPATIBLE = "lora_incompatible"
    INPUT_MISSING = "input_missing"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    WORKER_LOST = "worker_lost"
    REFUSED_FUNCTION = "refused_function"
    INTERNAL = "internal"


#: Whether the same request may succeed when it is sent again.
RETRYABLE = {
    FailureCode.OUT_OF_MEMORY: True,
    FailureCode.MODEL_LOAD_FAILED: False,
    FailureCode.LORA_INCOMPATIBLE: False,
    FailureCode.INPUT_MISSING: False,
    FailureCode.DEADLINE_EXCEEDED: True,
    FailureCode.WORKER_LOST: True,
    FailureCode.REFUSED_FUNCTION: False,
    FailureCode.INTERNAL: True,
}


class JobFailed(DarkroomError):
    """Raised by the worker for a failure whose reason is known; becomes the job's `error`."""

    def __init__(self, code: FailureCode, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{code}: {message}")
