"""The domain's errors. They carry data, not HTTP statuses: `app/errors.py` maps them, the worker records them.

DarkroomError
├── InvalidRequest        the request breaks a rule; one FieldProblem each
├── UnreadableBody        the body is not what its content type says
├── ImageTooLarge
├── NotAnImage
├── LinkRefused           a signed link is forged or expired
├── NotFound
│   └── Gone              it existed, and has expired
├── Conflict              the object's state does not allow the call
├── QuotaExceeded         an owner's files take all the bytes that they may
│   └── RecordQuotaExceeded  an owner's jobs, of the queue's memory
├── TryLater              carries `retry_after_seconds`
│   ├── QueueFull
│   ├── TooManyJobs       of one API key
│   ├── DailyLimitReached of one API key
│   ├── RateExceeded      of one API key
│   ├── ModelUnavailable  its files turned out to be unusable on every worker
│   └── TooManyImages     are waiting to be decoded
├── Unavailable           Redis or the storage does not answer
│   └── StorageFull       it takes no more bytes
├── AdapterRefused        a file that no model here can use as an adapter
│   └── AdapterDamaged    it is not what it was, or not whole
├── DestinationRefused    an address that the service must not connect to
├── DestinationUnknown    a host name that does not resolve
├── SettingsError
├── CatalogueError
└── JobFailed             why a job failed: contracts/jobs/failures.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: How many problems a refused request shows; where there are more, it says how many.
MAX_PROBLEMS = 50
#: Formats that images of requests may have.
IMAGE_FORMATS = ("png", "jpeg", "webp", "gif", "bmp", "tiff", "avif")


class DarkroomError(Exception):
    """Base class of all errors that Darkroom raises on purpose."""


@dataclass(frozen=True)
class FieldProblem:
    """One thing wrong with one field of a request.

    Attributes:
        field: path of the field in the client's body, such as `controls.0.image`.
        message: what was received, what is allowed and what to do about it, in one sentence.
        allowed: the accepted values or range; None if they cannot be listed.
    """

    field: str
    message: str
    allowed: object = None


class InvalidRequest(DarkroomError):
    """A request that breaks a rule. Raised before anything is queued or stored."""

    def __init__(self, problems: Sequence[FieldProblem], count: int = 0) -> None:
        """`count`: how many problems were found, where not all of them are given."""
        self.problems = tuple(problems[:MAX_PROBLEMS])
        self.count = count = max(count, len(problems))
        more = f"{count} problems, of which the first {MAX_PROBLEMS} are shown: " if count > MAX_PROBLEMS else ""
        super().__init__(more + "; ".join(f"{problem.field}: {problem.message}" for problem in self.problems))


class UnreadableBody(DarkroomError):
    """A body that is not what its content type says."""


class ImageTooLarge(DarkroomError):
    """An image with more bytes or pixels than allowed; raised before it is decoded, from its header."""

    def __init__(self, field: str, message: str, allowed: object) -> None:
        self.problem = FieldProblem(field, message, allowed)
        super().__init__(message)


class NotAnImage(DarkroomError):
    """Bytes that are not an image, a truncated image, or one of an unsupported format."""

    def __init__(self, field: str, message: str, allowed: Sequence[str] = IMAGE_FORMATS) -> None:
        """`allowed`: the formats that the field takes, if not all that images may have."""
        self.problem = FieldProblem(field, message, list(allowed))
        super().__init__(message)


class LinkRefused(DarkroomError):
    """A signed link that was altered or has expired."""


class NotFound(DarkroomError):
    """An id that does not exist, or that the caller may not see."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        super().__init__(f"{kind} {name!r} does not exist")


class Gone(NotFound):
    """A job that has expired; `owner` is the owner it had."""

    def __init__(self, kind: str, name: str, owner: str) -> None:
        super().__init__(kind, name)
        self.owner = owner
        self.args = (f"{kind} {name!r} has expired",)


class Conflict(DarkroomError):
    """A call that the object's state does not allow."""


class QuotaExceeded(DarkroomError):
    """A file that would exceed its owner's limit on stored bytes; nothing was stored."""

    def __init__(self, stored_bytes: int, max_bytes: int) -> None:
        super().__init__(
            f"your uploads, adapters and results, those of waiting jobs included, take {stored_bytes} of at most "
            f"{max_bytes} bytes, and this call would exceed that; delete jobs or adapters, or wait until some "
            "expire"
        )


class RecordQuotaExceeded(QuotaExceeded):
    """A job that would exceed its owner's limit on the queue's memory."""

    def __init__(self, record_bytes: int, max_bytes: int) -> None:
        DarkroomError.__init__(
            self,
            f"the records of your jobs, ended ones included, take {record_bytes} of at most {max_bytes} bytes of "
            "the queue's memory, and this job would exceed that; delete ended jobs, or wait until some expire",
        )


class TryLater(DarkroomError):
    """A limit that has been reached; the same call may succeed after `retry_after_seconds`."""

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{message}; try again in {retry_after_seconds} s")


class ModelUnavailable(TryLater):
    """A model, LoRA or ControlNet that every worker has failed to load; they try again."""

    def __init__(self, field: str, reason: str, retry_after_seconds: int) -> None:
        """`field`: of the request that names it; `reason`: for clients, without a path."""
        self.problem = FieldProblem(field, reason)
        super().__init__(reason, retry_after_seconds)


class QueueFull(TryLater):
    """A queue with the maximum number of waiting jobs, of all owners or of the caller; `waiting` says which."""

    def __init__(self, waiting: str, retry_after_seconds: int) -> None:
        super().__init__(f"the queue is full: {waiting}", retry_after_seconds)


class TooManyJobs(TryLater):
    """An API key, or all callers without one, with the maximum number of jobs waiting and running."""

    def __init__(self, max_jobs: int, retry_after_seconds: int) -> None:
        super().__init__(f"limit reached: at most {max_jobs} jobs may wait or run at a time", retry_after_seconds)


class DailyLimitReached(TryLater):
    """A job that would exceed what the jobs of its API key may use on one day (UTC)."""

    def __init__(self, limit: str, used: str, retry_after_seconds: int) -> None:
        super().__init__(
            f"daily limit: this API key may use {limit} a day, and has used {used}", retry_after_seconds
        )


class RateExceeded(TryLater):
    """A call of an API key, or of all callers without one, above the rate limit of `calls_per_minute`."""

    def __init__(self, calls_per_minute: int, retry_after_seconds: int) -> None:
        self.calls_per_minute = calls_per_minute
        super().__init__(f"rate limit reached: at most {calls_per_minute} calls a minute", retry_after_seconds)


class TooManyImages(TryLater):
    """A decoder with the maximum number of waiting images."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("too many images are being decoded", retry_after_seconds)


class Unavailable(DarkroomError):
    """A Redis or a storage that does not answer; the call may be repeated."""


class StorageFull(Unavailable):
    """A storage, or a disk of this process, that is full; nothing was stored."""


class SettingsError(DarkroomError):
    """A setting with an unusable value."""


class AdapterRefused(DarkroomError):
    """A file that cannot be used as an adapter with any model here; the message says why."""


class AdapterDamaged(AdapterRefused):
    """An adapter's file that has been damaged: it is cut off, or not a safetensors file."""


class DestinationRefused(DarkroomError):
    """An address that the service must not connect to; the message completes a sentence about the field."""


class DestinationUnknown(DarkroomError):
    """A host name that does not resolve; `is_final` if it does not exist, so that trying again is useless."""

    def __init__(self, message: str, *, is_final: bool) -> None:
        self.is_final = is_final
        super().__init__(message)


class CatalogueError(DarkroomError):
    """A catalogue file with missing or wrong entries."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 300 characters and without the home folder's path."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].replace(str(Path.home()), "~")[:300]
