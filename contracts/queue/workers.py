"""What workers tell of themselves: one Redis string each, that vanishes when they fall silent.

A sorted set names them, so that nobody who asks for the workers walks through all keys of all jobs.
"""

from __future__ import annotations

import math
import time
from typing import cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, field_validator
from redis import Redis

from contracts.memory.planner import Capacity
from contracts.redis import keys

#: Longer than any report lasts, and any two clocks differ.
_FORGET_SECONDS = 3600


class ModelReport(BaseModel):
    """What one model takes of a worker's memory.

    Attributes:
        plan: name of the plan that was taken last; empty while the model is parked.
        planned_bytes: what the plan needs on the device while a batch runs.
        resident_bytes: on the device between batches, adapters included.
        host_bytes: in host memory.
        kernels: what computed its last batch: `attention`, `channels_last`, `compile`.
    """

    model_config = ConfigDict(frozen=True)

    plan: str = ""
    planned_bytes: int | None = None
    resident_bytes: int = 0
    host_bytes: int = 0
    kernels: dict[str, str] = Field(default_factory=dict)


class CacheReport(BaseModel):
    """A cache of prompts' embeddings since the worker's start."""

    model_config = ConfigDict(frozen=True)

    hits: int = 0
    misses: int = 0
    entries: int = 0
    bytes: int = 0
    budget_bytes: int = 0


class WorkerReport(BaseModel):
    """A worker's own account.

    Attributes:
        state: `starting` until its warm list is loaded, then `idle` or `busy`; `draining` after SIGTERM.
        budget_bytes: of the device, for weights and activations.
        resident_bytes, host_bytes: weights of all models on the device, and in host memory.
        warm: models that are ready to run, on the device or parked.
        parked: those of them that are in host memory.
        placement: model -> component -> where it lives.
        stage_seconds: stage -> seconds that this worker's jobs have spent in it.
        capacity: what its memory can do; None while it is not known.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    state: str
    device: str = ""
    pid: int = 0
    host: str = ""
    budget_bytes: int | None = None
    resident_bytes: int | None = None
    host_bytes: int | None = None
    warm: list[str] = Field(default_factory=list)
    parked: list[str] = Field(default_factory=list)
    models: dict[str, ModelReport] = Field(default_factory=dict)
    embeddings: CacheReport = Field(default_factory=CacheReport)
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    adapters: dict[str, list[str]] = Field(default_factory=dict)
    placement: dict[str, dict[str, str]] = Field(default_factory=dict)
    current_jobs: list[str] = Field(default_factory=list)
    capacity: Capacity | None = None

    @field_validator("capacity", mode="wrap")
    @classmethod
    def _ignore_other_versions(cls, value: object, validate: ValidatorFunctionWrapHandler) -> Capacity | None:
        """A worker of another version may describe its memory differently: then nothing is known of it."""
        try:
            return cast("Capacity | None", validate(value))
        except ValidationError:
            return None


def publish(connection: Redis, report: WorkerReport, ttl_seconds: float) -> None:
    """Write the report; it lasts for `ttl_seconds`."""
    now = time.time()
    with connection.pipeline(transaction=True) as pipe:
        pipe.set(keys.WORKER + report.id, report.model_dump_json(), ex=math.ceil(ttl_seconds))
        pipe.zadd(keys.WORKERS, {report.id: now})
        pipe.zremrangebyscore(keys.WORKERS, "-inf", now - _FORGET_SECONDS)
        pipe.execute()


def withdraw(connection: Redis, worker_id: str) -> None:
    """Forget a worker that leaves in order."""
    connection.delete(keys.WORKER + worker_id)
    connection.zrem(keys.WORKERS, worker_id)


def read_workers(connection: Redis) -> list[WorkerReport]:
    """Reports of all live workers, by id."""
    ids = sorted(cast("list[str]", connection.zrange(keys.WORKERS, 0, -1)))
    reports = connection.mget([keys.WORKER + id for id in ids]) if ids else []
    return [WorkerReport.model_validate_json(text) for text in reports if text is not None]
