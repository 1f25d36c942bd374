"""The job's record: state, progress, result, error, receipt, as it lies in a Redis hash (`keys.JOB`).

Fields are written by the scripts in `contracts/redis/scripts/`; this module reads them. It knows no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.errors import RETRYABLE, FailureCode
from contracts.redis import keys
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import Priority, WebhookEvent


class JobState(StrEnum):
    """`queued → running → completed | failed | cancelled`; never back from the last three."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the state can change no more."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Progress(_Part):
    """How far a running job is; `fraction` is 0 to 1."""

    step: int = 0
    steps: int = 0
    fraction: float = 0.0
    eta_seconds: float | None = None


class ImageRecord(_Part):
    """One finished image. `key` is its place in the storage."""

    key: str
    width: int
    height: int
    seed: int
    format: str
    sha256: str
    size_bytes: int


class JobError(_Part):
    """Why a job failed, in words for the client."""

    code: FailureCode
    message: str
    retryable: bool

    @classmethod
    def of(cls, code: FailureCode, message: str) -> JobError:
        """The error of this code, which decides whether sending the request again may succeed."""
        return cls(code=code, message=message, retryable=RETRYABLE[code])


class Weights(_Part):
    """A set of weights that shaped the image. `sha256` is of its content."""

    id: str
    sha256: str
    family: str | None = None
    scale: float | None = None


class CacheUse(_Part):
    """Look-ups of prompts' embeddings: remembered, and not remembered.

    Attributes:
        ahead: texts of the latter for which T5 had been run on the CPU while an earlier batch was painted.
    """

    hits: int = 0
    misses: int = 0
    ahead: int = 0


class MemoryUse(_Part):
    """What a batch took of the device's memory.

    Attributes:
        plan: name of the memory plan that was used.
        planned_bytes: what the plan expected at the most, weights included.
        peak_bytes: what was measured; None on a CPU without a budget.
        ran_out: larger plans that ran out of memory for this very job before.
    """

    plan: str
    budget_bytes: int
    planned_bytes: int
    peak_bytes: int | None = None
    ran_out: list[str] = Field(default_factory=list)


class Receipt(_Part):
    """All that is needed to make the same image again, and what it took.

    Attributes:
        parameters: every resolved parameter.
        seeds: one an image.
        batch_images: images that shared the pipeline call, this job's own included.
        placement: component -> its device, or `on_demand`, `streamed`, `skipped`; in receipts written before these
            names, `visit` and `absent`.
        memory: the memory plan, and what it came to.
        predicted_calls: runs of the denoiser that `speed: fast` predicted, where `exact` computes them.
        departures: what the plan did that changes the image, for want of memory or by the operator's wish.
        embeddings: prompts of the batch that were remembered, and that had to be encoded.
        kernels: settings that may change the last bits: `attention`, `compile`, … -> what computed this image.
        versions: library -> version.
        timings: stage -> seconds (queue, load, encode_prompt, encode_inputs, denoise, decode, write, …).
    """

    parameters: JobParameters
    seeds: list[int]
    model: Weights
    loras: list[Weights] = Field(default_factory=list)
    controlnets: list[Weights] = Field(default_factory=list)
    batch_images: int = 1
    batch_jobs: int = 1
    placement: dict[str, str] = Field(default_factory=dict)
    memory: MemoryUse | None = None
    predicted_calls: int = 0
    departures: list[str] = Field(default_factory=list)
    embeddings: CacheUse = Field(default_factory=CacheUse)
    device: str = ""
    dtype: str = ""
    kernels: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    timings: dict[str, float] = Field(default_factory=dict)
    worker: str = ""


class WebhookRecord(_Part):
    """Where news of a job goes.

    Attributes:
        site: host and port; what counts as one receiver.
        base: the service's own URL for the links in the body, as the request named it.
    """

    url: str
    events: tuple[WebhookEvent, ...]
    site: str
    base: str


class DeliveryRecord(_Part):
    """How far one message of a webhook is; `status_code` and `error` are of its last attempt.

    Attributes:
        updated_at: Unix seconds on Redis' clock.
    """

    event: WebhookEvent
    status: Literal["pending", "delivered", "given_up"]
    attempts: int = 0
    status_code: int | None = None
    error: str | None = None
    updated_at: float


class JobRecord(_Part):
    """Everything that is known about one job. Times are Unix seconds on Redis' clock.

    Attributes:
        request_id: of the HTTP request that made it, for the logs.
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
    attempts: int = 0
    cancel_requested: bool = False
    progress: Progress = Field(default_factory=Progress)
    images: list[ImageRecord] = Field(default_factory=list)
    error: JobError | None = None
    receipt: Receipt | None = None
    webhook: WebhookRecord | None = None
    deliveries: dict[str, DeliveryRecord] = Field(default_factory=dict)

    @property
    def queue(self) -> str:
        """Name of the RQ queue that holds the job while it waits."""
        return queue_name(self.priority, self.parameters.model, self.owner)

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> JobRecord:
        """Read a record from its Redis hash (decoded strings)."""
        known: dict[str, Any] = {name: fields[name] for name in cls.model_fields if fields.get(name)}
        for name in _JSON_FIELDS & known.keys():
            known[name] = json.loads(known[name])
        return cls.model_validate(known)

    def to_hash(self) -> dict[str, str]:
        """The Redis hash of a new record, with what scripts and lists read beside it; the script says when."""
        fields = self.model_dump(mode="json", exclude_defaults=True, exclude={"created_at"})
        fields["attempts"] = self.attempts
        for name in _JSON_FIELDS & fields.keys():
            fields[name] = json.dumps(fields[name])
        fields |= {
            "queue": self.queue,
            "model": self.parameters.model,
            "needs": json.dumps(self.parameters.needs),
            "task": self.parameters.task,
            "batch_key": self.parameters.batch_key(),
            "num_images": self.parameters.num_images,
            "pixels": self.parameters.pixels,
            "adapters": json.dumps(self.parameters.adapters),
        }
        return {name: str(value) for name, value in fields.items()}


_JSON_FIELDS = {"parameters", "metadata", "progress", "images", "error", "receipt", "webhook", "deliveries"}


def queue_name(priority: Priority, model: str, owner: str) -> str:
    """One RQ queue per tier, model and owner, so that each can be served in turn."""
    return keys.JOB_QUEUE + f"{priority}:{model}:{owner}"


def pace_key(parameters: JobParameters) -> str:
    """What the seconds of a step are remembered by."""
    fast = "" if parameters.speed == "exact" else f" {parameters.speed}"
    return f"{parameters.model} {parameters.mode} {parameters.width}x{parameters.height}{fast}"
