"""The one exception of this package, and how it is made from what the service answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

#: Statuses after which the same call may succeed.
_TEMPORARY = frozenset({408, 429, 502, 503, 504})


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong with one field of a request.

    Attributes:
        field: path of the field, such as `controls.0.image`.
        allowed: the values that would have been accepted; None where they cannot be listed.
    """

    field: str
    message: str
    allowed: object = None


class DarkroomError(Exception):
    """A call that was refused or not answered, or a job that did not complete.

    Attributes:
        code: stable identifier, for programs: the service's own (`invalid_request`, `queue_full`), a failed job's
            (`out_of_memory`), `cancelled`; or this package's, `no_answer`, `timeout`, `bad_signature`.
        detail: what is wrong, in a sentence.
        type, title, status, request_id: of the problem details (RFC 9457) that the service sent; None or empty
            where it sent none.
        errors: the fields that are wrong.
        retry_after_seconds: when to call again, if the service said so.
        job: the job that did not complete; None for an error about a call.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        uri: str = "about:blank",
        title: str = "",
        status: int | None = None,
        errors: Sequence[FieldError] = (),
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
        job: Mapping[str, Any] | None = None,
    ) -> None:
        self.code, self.detail, self.type, self.title, self.status = code, detail, uri, title, status
        self.errors, self.request_id, self.job = tuple(errors), request_id, job
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{code}: {detail}")

    @property
    def errors_by_field(self) -> dict[str, list[str]]:
        """Field -> what is wrong with it."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for error in self.errors:
            found[error.field].append(error.message)
        return dict(found)

    @property
    def is_temporary(self) -> bool:
        """Whether the same call may succeed later."""
        return self.code == "no_answer" or self.status in _TEMPORARY


def error_of_response(response: httpx.Response) -> DarkroomError:
    """The error that a response reports, whose body has been read; a proxy's page is one without a problem."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    problem = problem if isinstance(problem, dict) else {}
    errors = problem.get("errors")
    return DarkroomError(
        str(problem.get("code", f"http_{response.status_code}")),
        str(problem.get("detail") or f"{response.status_code} {response.reason_phrase}"),
        uri=str(problem.get("type", "about:blank")),
        title=str(problem.get("title", response.reason_phrase)),
        status=response.status_code,
        errors=[
            FieldError(str(entry.get("field", "")), str(entry.get("message", "")), entry.get("allowed"))
            for entry in (errors if isinstance(errors, list) else ())
            if isinstance(entry, dict)
        ],
        request_id=problem.get("request_id") or response.headers.get("x-request-id"),
        retry_after_seconds=_seconds(response.headers.get("retry-after", "")),
    )


def error_of_job(job: Mapping[str, Any]) -> DarkroomError:
    """The error of a job that failed or was cancelled."""
    error = job.get("error") or {"code": "cancelled", "message": f"job {job['id']} was cancelled"}
    title = "Job cancelled" if job["status"] == "cancelled" else "Job failed"
    return DarkroomError(error["code"], error["message"], title=title, job=job)


def _seconds(text: str) -> float | None:
    """The value of `Retry-After`; the service sends seconds, never a date."""
    return float(text) if text.isdecimal() else None
