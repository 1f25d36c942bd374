"""Webhook messages as a dispatcher sees them: claimed under a lease, finished once. Knows no HTTP.

The scripts queue a message, an RQ job with a copy of its job's record, in the same step as the event that it
reports, so that no crash can come between the two.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from redis import Redis

from contracts.errors import DestinationUnknown
from contracts.jobs.record_reader import UnreadableJob, read_record
from contracts.jobs.records import JobRecord, WebhookRecord
from contracts.outbound.addresses import read_destination, resolve
from contracts.redis import keys
from contracts.redis.connection import Scripts
from contracts.requests.schema import Webhook
from contracts.settings import OutboundSettings
from contracts.tracing.trace_context import TRACEPARENT, TRACESTATE, TraceContext, read_trace_context

#: Timeout of a name look-up while a client waits for its response.
_COURTESY_SECONDS = 1.0

Next = Literal["again", "back", "delivered", "given_up"]


def resolve_webhook(webhook: Webhook, base: str, rules: OutboundSettings) -> WebhookRecord:
    """Check a request's webhook and make its record; `base` is the service's base URL, for links.

    Each delivery resolves and checks the name again, so a name that does not resolve just now is accepted.

    Raises:
        DestinationRefused: the rules do not allow the address.
        DestinationUnknown: the host does not exist.
    """
    destination = read_destination(webhook.url, rules)
    try:
        resolve(destination, rules.model_copy(update={"resolve_seconds": _COURTESY_SECONDS}))
    except DestinationUnknown as unknown:
        if unknown.is_final:
            raise
    return WebhookRecord(url=webhook.url, events=webhook.events, site=destination.site, base=base)


@dataclass(frozen=True)
class Message:
    """A message about a job's event on its way to a receiver.

    Attributes:
        id: sent to the receiver too; the same for every attempt.
        attempts: failed attempts so far.
        sequence: its number among the messages of its job, from 1; 0 for one that an older release queued.
        record: the job's hash as it was at the event.
        execution: the fencing token.
    """

    id: str
    event: str
    site: str
    attempts: int
    sequence: int
    record: Mapping[str, str]
    execution: str

    def read_job(self) -> JobRecord:
        """The job as it was at the event.

        Raises:
            ValueError: its record cannot be read.
        """
        job = read_record(self.record)
        if isinstance(job, UnreadableJob):
            raise ValueError(f"the record of job {job.id} cannot be read")
        return job

    @property
    def owner(self) -> str:
        """Whose job it is, and so whose secret signs it."""
        return self.record.get("owner", "")

    @property
    def belongs_to(self) -> dict[str, str]:
        """The ids of the job, its request and its trace, for the logs."""
        ids = {"job_id": self.record.get("id", ""), "request_id": self.record.get("request_id", "")}
        context = self.trace_context
        return ids if context is None else {**ids, "trace_id": context.trace_id}

    @property
    def trace_context(self) -> TraceContext | None:
        """The job's place in a trace; None without one."""
        return read_trace_context([self.record.get(TRACEPARENT, "")], [self.record.get(TRACESTATE, "")])


@dataclass(frozen=True)
class Outcome:
    """Result of an attempt, and what comes next: `again` after a pause, `back` to the queue, or a final state.

    Attributes:
        status_code: of the receiver's response; None without one.
        error: a message for the job's owner.
        pause_seconds: until the next attempt, for `again`.
    """

    next: Next
    status_code: int | None = None
    error: str | None = None
    pause_seconds: float = 0.0


class ForeignJob(Exception):
    """An RQ job in a webhook queue that is not one of our messages."""


class Outbox:
    """Waiting webhook messages, and the leases of one dispatcher on them."""

    def __init__(self, connection: Redis, worker: str, lease_seconds: float) -> None:
        """`connection` decodes responses; `lease_seconds` is longer than any attempt takes."""
        self.connection = connection
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._scripts = Scripts(connection)

    def claim(self, full: Collection[str]) -> Message | None:
        """Claim the next message to a site that is not `full`; None if none is waiting.

        Raises:
            ForeignJob: it was not a message; it has been removed from the queue.
        """
        execution = secrets.token_hex(16)
        verdict, *found = self._scripts.run(
            "claim_message",
            full=list(full),
            execution=execution,
            worker=self._worker,
            lease_seconds=self._lease_seconds,
        ) or ["nothing"]
        if verdict == "foreign":
            raise ForeignJob(found[0])
        if verdict == "nothing":
            return None
        id, event, site, attempts, sequence, record, constants = found
        fields = {**_read_object(constants), **_read_object(record)}
        return Message(id, event, site, int(attempts), int(sequence), fields, execution)

    def seconds_until_due(self) -> float:
        """Seconds until the next retry is due, at least 0; infinity if no message waits for one."""
        with self.connection.pipeline(transaction=False) as pipe:
            pipe.zrange(keys.WEBHOOK_RETRIES, 0, 0, withscores=True)
            pipe.time()
            first, (seconds, micros) = pipe.execute()
        return max(0.0, first[0][1] - seconds - micros / 1e6) if first else math.inf

    def finish(self, message: Message, outcome: Outcome) -> bool:
        """Finish an attempt; returns False, and writes nothing, if the lease was lost."""
        shown = {"status_code": outcome.status_code, "error": outcome.error}
        answer = self._scripts.run(
            "finish_message",
            id=message.id,
            execution=message.execution,
            next=outcome.next,
            pause_seconds=outcome.pause_seconds,
            shown={name: value for name, value in shown.items() if value is not None},
        )
        return bool(answer)


def _read_object(text: str) -> dict[str, str]:
    try:
        fields = json.loads(text)
    except ValueError:
        return {}
    return (
        {name: value for name, value in fields.items() if isinstance(value, str)}
        if isinstance(fields, dict)
        else {}
    )
