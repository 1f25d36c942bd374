"""The record of a job: state, progress, result, error, receipt, stored as a Redis hash (`keys.JOB`).

Scripts write the fields; `record_reader.py` reads them. Knows no HTTP.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from contracts.errors import RETRYABLE, FailureCode
from contracts.processes.preparations import Preparation
from contracts.redis import keys
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import Priority, WebhookEvent

#: Version of the records that this release writes; a record without one has 0. It is raised only when an older
#: release would misread them: readers ignore unknown fields, and have defaults for missing ones.
RECORD_VERSION = 1


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


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Progress(_Part):
    """Progress of a running job; `fraction` is 0 to 1."""

    step: int = 0
    steps: int = 0
    fraction: float = 0.0
    eta_seconds: float | None = None


class ImageRecord(_Part):
    """A finished image; `key` is its storage key."""

    key: str
    width: int
    height: int
    seed: int
    format: str
    sha256: str
    size_bytes: int


class JobError(_Part):
    """Why a job failed."""

    code: FailureCode
    message: str
    retryable: bool

    @classmethod
    def of(cls, code: FailureCode, message: str) -> JobError:
        """The error of this code, which decides whether sending the request again may succeed."""
        return cls(code=code, message=message, retryable=RETRYABLE[code])


class Weights(_Part):
    """Weights that an image was generated with, with the SHA-256 of their content.

    Attributes:
        repository: `org/name` on a hub, where they come from one.
        revision: its commit.
    """

    id: str
    sha256: str
    family: str | None = None
    scale: float | None = None
    repository: str | None = Field(None, exclude_if=lambda value: value is None)
    revision: str | None = Field(None, exclude_if=lambda value: value is None)


class CacheUse(_Part):
    """Look-ups in the prompt embedding cache.

    Attributes:
        ahead: prompts among the misses that T5 had encoded on the CPU while an earlier job was denoised.
    """

    hits: int = 0
    misses: int = 0
    ahead: int = 0


class MemoryUse(_Part):
    """Device memory that the job's pipeline call used.

    Attributes:
        plan: name of the memory plan that was used.
        planned_bytes: maximum that the plan predicted, weights included.
        peak_bytes: measured maximum; None on a CPU without a budget.
        ran_out: larger plans with which this job ran out of memory before.
    """

    plan: str
    budget_bytes: int
    planned_bytes: int
    peak_bytes: int | None = None
    ran_out: list[str] = Field(default_factory=list)


class Receipt(_Part):
    """Generation metadata: all that is needed to generate the same image again, and the resources it took.

    Attributes:
        parameters: all parameters, defaults included; a stored receipt has those of its job.
        seeds: one for each image.
        mean_rows: mean number of rows in the denoiser calls that the job was in, counting rows of the same owner's
            jobs, this one's included.
        pauses: how often the job waited, after its start, while a call of another job of the same owner was made.
        joined: whether any of its calls was joined with those of other jobs, of whichever owner.
        placement: component -> its device, or `on_demand`, `streamed`, `skipped`; in receipts written before these
            names, `visit` and `absent`.
        memory: the memory plan, and what was used.
        predicted_calls: denoiser calls that `speed: fast` predicted instead of computing.
        deviations: what the memory plan changed about the image, for lack of memory or by the operator's choice;
            named `departures` in receipts of older releases.
        embeddings: look-ups in the prompt embedding cache for the same owner's jobs in the call; an embedding that
            only jobs of other owners have used before counts as a miss.
        kernels: options that may change the last bits: `attention`, `compile`, … -> value.
        versions: library -> version.
        timings: stage -> seconds (queue, load, encode_prompt, encode_inputs, denoise, decode, write, …).
    """

    parameters: JobParameters
    seeds: list[int]
    model: Weights
    loras: list[Weights] = Field(default_factory=list)
    controlnets: list[Weights] = Field(default_factory=list)
    mean_rows: float = 1.0
    pauses: int = 0
    joined: bool = False
    placement: dict[str, str] = Field(default_factory=dict)
    memory: MemoryUse | None = None
    predicted_calls: int = 0
    deviations: list[str] = Field(default_factory=list, validation_alias=AliasChoices("deviations", "departures"))
    embeddings: CacheUse = Field(default_factory=CacheUse)
    device: str = ""
    dtype: str = ""
    kernels: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    timings: dict[str, float] = Field(default_factory=dict)
    worker: str = ""


class WebhookRecord(_Part):
    """A job's webhook.

    Attributes:
        site: host and port, which identify a receiver.
        base: the service's base URL for links in the body, as the client addressed it.
    """

    url: str
    events: tuple[WebhookEvent, ...]
    site: str
    base: str


class DeliveryRecord(_Part):
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


class JobRecord(_Part):
    """All data of one job. Times are Unix seconds on Redis' clock.

    Attributes:
        request_id: id of the HTTP request that created it, for the logs.
        max_run_seconds: maximum time of one attempt; then the job fails with `duration_exceeded`. None: no limit.
        preparing: while it waits for files, how their preparation goes on.
    """

    id: str
    state: JobState
    parameters: JobParameters
    owner: str
    priority: Priority
    response_format: str = "url"
    metadata: dict[str, str] = Field(default_factory=dict)
    request_id: str = ""
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    deadline_at: float | None = None
    max_run_seconds: float | None = None
    attempts: int = 0
    cancel_requested: bool = False
    progress: Progress = Field(default_factory=Progress)
    preparing: Preparation | None = None
    images: list[ImageRecord] = Field(default_factory=list)
    error: JobError | None = None
    receipt: Receipt | None = None
    webhook: WebhookRecord | None = None
    deliveries: dict[str, DeliveryRecord] = Field(default_factory=dict)

    @property
    def queue(self) -> str:
        """Name of the RQ queue in which the job waits."""
        return queue_name(self.priority, self.parameters.model, self.owner)

    def to_hash(self) -> dict[str, str]:
        """Write the hash of a new record, with fields for scripts and lists; the script adds `created_at`."""
        fields = self.model_dump(mode="json", exclude_defaults=True, exclude={"created_at"})
        for name in JSON_FIELDS & fields.keys():
            fields[name] = to_json(fields[name])
        fields |= {
            "version": RECORD_VERSION,
            "queue": self.queue,
            "model": self.parameters.model,
            "needs": to_json(self.parameters.needs),
            "task": self.parameters.task,
            "work": to_json(work_of(self.parameters)),
        }
        return {name: str(value) for name, value in fields.items()}


class Position(NamedTuple):
    """A waiting job's position: jobs ahead of it in its queue, and estimated seconds to its end.

    The seconds come from the measured pace of earlier jobs, and are None before the first measurement.
    """

    ahead: int
    eta_seconds: float | None = None


class AcceptedJob(JobRecord):
    """The record of a job that has just been accepted, with its position at that moment, which is not stored.

    Attributes:
        position: None when it no longer waits.
    """

    position: Position | None = Field(None, exclude=True)


#: Fields that are stored as JSON.
JSON_FIELDS = frozenset(
    {"parameters", "metadata", "progress", "preparing", "images", "error", "receipt", "webhook", "deliveries"}
)


def to_json(value: object) -> str:
    """JSON as it is stored: text in UTF-8, since an escaped character takes 6 to 12 bytes instead of 1 to 4."""
    return json.dumps(value, ensure_ascii=False)


def queue_name(priority: Priority, model: str, owner: str) -> str:
    """Name of the RQ queue of a tier, model and owner, so that owners can take turns."""
    return keys.JOB_QUEUE + f"{priority}:{model}:{owner}"


def work_of(parameters: JobParameters) -> dict[str, Any]:
    """How much a job computes, from which the scripts predict its seconds (`predicted_seconds` in accounts.lua).

    `image_steps` are denoising steps, of every image; `megapixel_steps` the same, times a megapixel of each image.
    """
    return {
        "pace": pace_key(parameters),
        "model": parameters.model,
        "image_steps": parameters.num_inference_steps * parameters.num_images,
        "megapixel_steps": parameters.num_inference_steps * parameters.pixels / 1e6,
    }


def pace_key(parameters: JobParameters) -> str:
    """The key of the measured seconds per image and step: equal for jobs whose images take equally long steps."""
    fast = "" if parameters.speed == "exact" else f" {parameters.speed}"
    return f"{parameters.model} {parameters.mode} {parameters.width}x{parameters.height}{fast}"
