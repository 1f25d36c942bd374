"""A batch as it is stored in Redis, and what one round of work changes of it. Talks to no Redis."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class BatchStatus(StrEnum):
    """Status of a batch, in OpenAI's words."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the batch has ended."""
        return self in FINAL


FINAL = (BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED)


class LineError(BaseModel):
    """Something wrong with a line of a batch's file, or with the file."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Batch(BaseModel):
    """A batch. Times are Unix seconds on Redis' clock.

    Attributes:
        api_key: id of the API key that created it; its jobs count for this key.
        base: the service's base URL, for links in results.
        input_key, input_bytes: of the file of requests in the storage.
        outcome: the final status that a batch that is ending will have.
        offset, line: where the lines begin that no job was created for yet, and the number of lines before.
        parts: how many files with parts of the results there are.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    owner: str
    api_key: str
    base: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] = Field(default_factory=dict)
    input_file_id: str
    input_key: str
    input_bytes: int
    output_seconds: int
    status: BatchStatus = BatchStatus.VALIDATING
    outcome: BatchStatus | None = None
    created_at: float = 0.0
    expires_at: float = 0.0
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    offset: int = 0
    line: int = 0
    parts: int = 0
    errors: tuple[LineError, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None

    @property
    def ending(self) -> BatchStatus | None:
        """The final status of a batch for whose lines no further jobs are created; None: they are."""
        return BatchStatus.CANCELLED if self.status is BatchStatus.CANCELLING else self.outcome

    @classmethod
    def from_hash(cls, id: str, fields: Mapping[str, str]) -> Batch:
        """Read a batch from its Redis hash."""
        parsed = {name: json.loads(fields[name]) for name in _JSON_FIELDS & fields.keys()}
        return cls.model_validate({"id": id, **fields, **parsed})

    def to_hash(self) -> dict[str, str]:
        """Make the Redis hash of a new batch; the script adds its times."""
        return write_fields(self.model_dump(mode="json", exclude_defaults=True, exclude={"id"}))


#: Fields that are stored as JSON.
_JSON_FIELDS = frozenset({"metadata", "errors"})


def write_fields(fields: Mapping[str, Any]) -> dict[str, str]:
    """Write fields as they are stored in a batch's hash."""
    return {
        name: json.dumps(value, ensure_ascii=False) if name in _JSON_FIELDS else str(value)
        for name, value in fields.items()
    }


class StartedLine(BaseModel):
    """A line for which a job was created.

    Attributes:
        job: id of the job.
        quality: of the request, for its answer.
    """

    model_config = ConfigDict(frozen=True)

    job: str
    custom_id: str
    quality: str | None = None


@dataclass
class Round:
    """The changes that one round of work makes to a batch.

    Attributes:
        fields: values of the batch's hash.
        started: lines for which jobs were created, by number.
        ended: numbers of started lines whose results are in `parts`.
        completed, failed: lines that have succeeded and failed.
        parts: storage keys of results by kind, `output` or `error`.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    started: dict[int, StartedLine] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    completed: int = 0
    failed: int = 0
    parts: dict[str, str] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """As `commit_batch.lua` takes it."""
        return {
            "fields": write_fields(self.fields),
            "started": {str(number): line.model_dump_json() for number, line in self.started.items()},
            "ended": [str(number) for number in self.ended],
            "completed": self.completed,
            "failed": self.failed,
            "parts": [f"{kind} {key}" for kind, key in self.parts.items()],
        }
