"""The record of a job: state, progress, result, error, receipt, stored as a Redis hash (`keys.JOB`).

Scripts write the fields; `record_reader.py` reads them. Knows no HTTP.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from pydantic import Field

from contracts.jobs.failures import RETRYABLE, FailureCode
from contracts.jobs.image_safety import ImageSafety
from contracts.jobs.preparations import Preparation
from contracts.jobs.receipt import Receipt, RecordPart
from contracts.left_out_fields import OrLeftOut
from contracts.prompts.tokens import TokenUse
from contracts.redis import keys
from contracts.requests.any_parameters import AnyParameters
from contracts.requests.schema import Priority, WebhookEvent
from contracts.requests.task_parameters import TaskParameters
from contracts.tracing.trace_context import TraceContext, read_trace_context

#: Version of the records that this release reads; a record without one has 0. It is raised only when an older
#: release would misread them: readers ignore unknown fields, and have defaults for missing ones.
RECORD_VERSION = 3


class JobState(StrEnum):
    """A job's state: `queued → running → completed | failed | cancelled`; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class Progress(RecordPart):
    """Progress of a job."""

    step: int = Field(0, description="Denoising steps that are done; 0 before the first one.")
    steps: int = Field(0, description="Denoising steps in all; 0 until the job has started.")
    fraction: float = Field(0.0, description="Fraction of the job's work that is done, 0 to 1.")
    loss: OrLeftOut[float] = Field(
        None, description="For a training: loss of the last step, without the class images' part."
    )
    eta_seconds: float | None = Field(
        None,
        description="Estimated seconds until the job ends, including its time in the queue; null while "
        "it cannot be estimated.",
    )
    eta_range_seconds: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Likely range of `eta_seconds`: the lowest and the highest value; null when `eta_seconds` is.",
    )
    eta_reason: OrLeftOut[str] = Field(
        None, description="Why `eta_seconds` is null, while the job waits or runs; left out otherwise."
    )


class ImageRecord(RecordPart):
    """A finished image; `key` is its storage key.

    Attributes:
        layer: of an image that was made in layers, the one that the file has, from 0, the backmost; else None.
        size_bytes: of its file; of a job's first image, of the latents that the job keeps, too.
    """

    key: str
    width: int
    height: int
    seed: int | None = None
    layer: OrLeftOut[int] = None
    format: str
    sha256: str
    size_bytes: int
    safety: OrLeftOut[ImageSafety] = None


class JobError(RecordPart):
    """Why a job failed."""

    code: FailureCode = Field(description="Stable identifier of the reason, for programs.")
    message: str = Field(description="The reason in a sentence, for people.")
    retryable: bool = Field(description="Whether the same request may succeed when it is sent again.")

    @classmethod
    def of(cls, code: FailureCode, message: str) -> JobError:
        """The error of this code, which decides whether sending the request again may succeed."""
        return cls(code=code, message=message, retryable=code in RETRYABLE)


class WebhookRecord(RecordPart):
    """A job's webhook.

    Attributes:
        site: host and port, which identify a receiver.
        base: the service's base URL for links in the body, as the client addressed it.
        prediction_version: the body is a prediction, as Replicate's clients read it, of this version of the model;
            None: it is the job.
    """

    url: str
    events: tuple[WebhookEvent, ...]
    site: str
    base: str
    prediction_version: str | None = None


class DeliveryRecord(RecordPart):
    """State of one message of a webhook; `status_code` and `error` are those of the last attempt.

    Attributes:
        sequence: number of the message among those of its job, from 1; 0 in records of older releases.
        updated_at: Unix seconds on Redis' clock.
    """

    event: WebhookEvent
    status: Literal["pending", "delivered", "given_up"]
    attempts: int = 0
    sequence: int = 0
    status_code: int | None = None
    error: str | None = None
    updated_at: float


class CheckpointRecord(RecordPart):
    """The newest checkpoint of a training.

    Attributes:
        key: of the file in the storage, which is kept as long as the record.
        progress: of the training when it was written; it is shown while the training waits to go on.
    """

    key: str
    progress: Progress


class JobRecord(RecordPart):
    """All data of one job. Times are Unix seconds on Redis' clock.

    Attributes:
        api_key: id of the API key that sent it; `anonymous` without one.
        request_id: id of the HTTP request that created it, for the logs.
        traceparent, tracestate: its place in a trace (W3C Trace Context); empty without one.
        max_run_seconds: maximum worker time of one attempt, without pauses for other jobs; then the job fails with
            `duration_exceeded`. None: no limit.
        cancel_on_disconnect: whether it is cancelled once nobody waits for it.
        preparing: while it waits for files, how their preparation goes on.
        checkpoint: of a training; None before the first.
        prompt_tokens, negative_prompt_tokens: as the API counted them; None where it could not.
        released: numbers of its flagged images that an operator has given to its owner.
    """

    id: str
    state: JobState
    parameters: AnyParameters
    owner: str
    api_key: str = ""
    priority: Priority
    response_format: str = "url"
    metadata: dict[str, str] = Field(default_factory=dict)
    request_id: str = ""
    traceparent: str = ""
    tracestate: str = ""
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    deadline_at: float | None = None
    max_run_seconds: float | None = None
    attempts: int = 0
    cancel_requested: bool = False
    prompt_tokens: dict[str, TokenUse] | None = None
    negative_prompt_tokens: dict[str, TokenUse] | None = None
    cancel_on_disconnect: bool = False
    progress: Progress = Field(default_factory=Progress)
    preparing: Preparation | None = None
    checkpoint: CheckpointRecord | None = None
    images: list[ImageRecord] = Field(default_factory=list)
    released: list[int] = Field(default_factory=list)
    error: JobError | None = None
    receipt: Receipt | None = None
    webhook: WebhookRecord | None = None
    deliveries: dict[str, DeliveryRecord] = Field(default_factory=dict)

    @property
    def trace_context(self) -> TraceContext | None:
        """Its place in a trace; None without one."""
        return read_trace_context([self.traceparent], [self.tracestate])

    @property
    def queue(self) -> str:
        """Name of the RQ queue in which the job waits."""
        return queue_name(self.priority, self.parameters.model, self.owner)

    def to_hash(self) -> dict[str, str]:
        """Write the hash of a new record, with fields for scripts and lists; the script adds `created_at`."""
        fields = self.model_dump(mode="json", exclude_defaults=True, exclude={"created_at", "parameters"})
        for name in JSON_FIELDS & fields.keys():
            fields[name] = to_json(fields[name])
        fields |= {
            "parameters": self.parameters.model_dump_json(exclude_defaults=True),
            "version": self.parameters.record_version,
            "queue": self.queue,
            "model": self.parameters.model,
            "needs": to_json(self.parameters.needs),
            "task": self.parameters.task,
            "work": to_json(self.parameters.work),
        }
        return {name: str(value) for name, value in fields.items()}


class Position(NamedTuple):
    """Position and expected end of a job that has not ended.

    Attributes:
        ahead: waiting jobs that are served before it; None: it runs.
        eta_seconds: estimated seconds to its end; None: nothing is known that they could be estimated from.
        low_seconds, high_seconds: between which the end is likely.
        reason: why nothing can be estimated; empty where something can.
    """

    ahead: int | None
    eta_seconds: float | None = None
    low_seconds: float = 0.0
    high_seconds: float = 0.0
    reason: str = ""


#: Fields that are stored as JSON.
JSON_FIELDS = frozenset(
    {
        "parameters",
        "metadata",
        "prompt_tokens",
        "negative_prompt_tokens",
        "progress",
        "preparing",
        "checkpoint",
        "images",
        "released",
        "error",
        "receipt",
        "webhook",
        "deliveries",
    }
)


def to_json(value: object) -> str:
    """JSON as it is stored: text in UTF-8, since an escaped character takes 6 to 12 bytes instead of 1 to 4."""
    return json.dumps(value, ensure_ascii=False)


def queue_name(priority: Priority, model: str, owner: str) -> str:
    """Name of the RQ queue of a tier, model and owner, so that owners can take turns."""
    return keys.JOB_QUEUE + f"{priority}:{model}:{owner}"


@dataclass(frozen=True)
class Measured:
    """Cost of a completed job for its worker, from which later ones are predicted.

    Attributes:
        denoise_seconds: of its own denoising, its share of joined calls included.
        load_seconds: in which its model was loaded and placed.
        call_images: images in its calls of the denoiser on average, those of other jobs included; None: unknown.
        image_rows: rows of an image in a call.
    """

    denoise_seconds: float
    load_seconds: float = 0.0
    call_images: float | None = None
    image_rows: float = 1.0

    def arguments(self, parameters: TaskParameters) -> dict[str, Any]:
        """As the scripts learn from it."""
        found = {"work": parameters.work, "seconds": self.denoise_seconds, "load_seconds": self.load_seconds}
        if self.call_images is None:
            return found
        return {**found, "images": self.call_images, "image_rows": self.image_rows}
