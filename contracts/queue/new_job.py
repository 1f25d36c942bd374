"""A job before it is queued: what its caller says of it, its first record, and RQ's fields. Talks to no Redis."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TypedDict

from rq.job import JobStatus

from contracts.jobs.records import JobRecord, JobState, WebhookRecord
from contracts.requests.any_parameters import AnyParameters
from contracts.requests.prompts.counts import PromptCounts
from contracts.requests.schema import Priority
from contracts.tracing.trace_context import TraceContext

#: The function that RQ's record of a job names; nothing is imported here. A worker runs no job that names another.
RUN_FUNCTION = "worker.loop.rq_job.run_job"
#: Names under which earlier releases queued jobs.
FORMER_RUN_FUNCTIONS = ("worker.jobs.run",)

#: RQ's fields of every job of ours.
_RQ_CONSTANTS = {
    "status": JobStatus.QUEUED.value,
    "timeout": "-1",
    **dict.fromkeys(
        ("success_callback_name", "failure_callback_name", "stopped_callback_name", "started_at", "ended_at",
         "last_heartbeat", "worker_name", "group_id"), "",
    ),
}  # fmt: skip


class JobOptions(TypedDict, total=False):
    """Options of a job beside its parameters; the fields of a `JobRecord` with the same names.

    Attributes:
        owner: "local" unless it is named.
        api_key: id of the key that sends it, for which it is counted.
        priority: normal unless it is named.
        counts: the tokens of its prompts; None where they could not be counted.
        trace_context: its place in a trace.
    """

    owner: str
    api_key: str
    priority: Priority
    max_run_seconds: float | None
    response_format: str
    metadata: dict[str, str]
    webhook: WebhookRecord | None
    request_id: str
    trace_context: TraceContext | None
    counts: PromptCounts | None
    cancel_on_disconnect: bool


def new_record(parameters: AnyParameters, options: JobOptions) -> JobRecord:
    """Make the record of a job that is about to be queued, with a new id; Redis' clock gives its time later."""
    counts, context = options.get("counts"), options.get("trace_context")
    return JobRecord(
        id=secrets.token_hex(16),
        state=JobState.QUEUED,
        parameters=parameters,
        owner=options.get("owner", "local"),
        api_key=options.get("api_key", ""),
        priority=options.get("priority", Priority.NORMAL),
        response_format=options.get("response_format", "url"),
        metadata=options.get("metadata", {}),
        webhook=options.get("webhook"),
        request_id=options.get("request_id", ""),
        traceparent="" if context is None else context.traceparent,
        tracestate="" if context is None else context.state,
        prompt_tokens=None if counts is None else counts.prompt,
        negative_prompt_tokens=None if counts is None else counts.negative,
        max_run_seconds=options.get("max_run_seconds"),
        cancel_on_disconnect=options.get("cancel_on_disconnect", False),
        created_at=0,
    )


def rq_fields(record: JobRecord) -> dict[str, str]:
    """Make the hash of the RQ job, as `Job.create` and `Job.to_dict` do at a far higher cost.

    RQ compresses `data`, and reads it uncompressed too. A test compares the fields with those of the installed RQ.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        **_RQ_CONSTANTS,
        "created_at": now,
        "enqueued_at": now,
        "origin": record.queue,
        "description": f"{record.parameters.task} on {record.parameters.model}",
        "data": f'["{RUN_FUNCTION}", null, ["{record.id}"], {{}}]',
    }
