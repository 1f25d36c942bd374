"""Retries that a client's library sends by itself: they find the job that the first call made."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from contracts.errors import Unavailable
from contracts.jobs.records import JobRecord, JobState
from contracts.queue.client import JobQueue
from contracts.queue.retries import RepeatableCall, Retries


@dataclass(frozen=True)
class ClientRetry:
    """Information from a client's library about its retries of a call.

    Attributes:
        caller: whose calls are the same only among themselves: owner and API key.
        count: how often the call was sent before; None where the client does not say, and so does not retry.
    """

    retries: Retries
    queue: JobQueue
    caller: str
    count: int | None

    def call(self, fingerprint: str) -> RepeatableCall | None:
        """The call with this hash of target and body, if it may be sent again."""
        if self.count is None:
            return None
        return RepeatableCall(self.caller, fingerprint, is_retry=self.count > 0)

    def find(self, call: RepeatableCall) -> JobRecord | None:
        """The latest job of a call that is sent again, unless its end was delivered, or it came to nothing."""
        if not call.is_retry:
            return None
        for record in self.queue.fetch_all(self.retries.made_by(call)):
            if record.state not in (JobState.FAILED, JobState.CANCELLED) and not record.cancel_requested:
                return record
        return None

    def forget(self, call: RepeatableCall, record: JobRecord) -> None:
        """The job's end has been delivered; without Redis it is forgotten by itself within a minute."""
        with suppress(Unavailable):
            self.retries.forget(call, record.id)
