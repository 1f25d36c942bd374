"""Workers' reports: one Redis string for each worker, which expires when the worker stops writing it.

A sorted set holds the workers' ids, so that they can be listed without a scan of all keys.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from typing import cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, field_validator
from redis import Redis

from contracts.memory.planner import Capacity
from contracts.processes.preparations import FETCHING, READING, RETRYING, WAITING, Preparation
from contracts.redis import keys
from contracts.redis.connection import Scripts

_log = logging.getLogger(__name__)


class ModelReport(BaseModel):
    """The memory that one model uses in a worker.

    Attributes:
        plan: name of the last memory plan; empty while the model is parked in host memory.
        planned_bytes: device memory that the plan needs while a batch runs.
        resident_bytes: device memory between batches, adapters included.
        host_bytes: host memory.
        kernels: implementations that computed its last batch: `attention`, `channels_last`, `compile`.
    """

    model_config = ConfigDict(frozen=True)

    plan: str = ""
    planned_bytes: int | None = None
    resident_bytes: int = 0
    host_bytes: int = 0
    kernels: dict[str, str] = Field(default_factory=dict)


class CacheReport(BaseModel):
    """Counts of the cache of prompt embeddings since the worker's start."""

    model_config = ConfigDict(frozen=True)

    hits: int = 0
    misses: int = 0
    entries: int = 0
    bytes: int = 0
    budget_bytes: int = 0


class WorkerReport(BaseModel):
    """The state of a worker, as it reports it.

    Attributes:
        state: `starting` until its warm list is loaded, then `idle` or `busy`; `paused` while it claims nothing,
            for a `reason`; `draining` after SIGTERM.
        reason: why it is paused.
        budget_bytes: device memory for weights and activations.
        resident_bytes, host_bytes: weights of all models in device memory and in host memory.
        warm: models that are loaded, in device memory or parked.
        parked: the warm models that are in host memory.
        adapters: model -> loaded LoRAs.
        placement: model -> component -> where its weights are.
        stage_seconds: stage -> seconds that this worker's jobs have spent in it.
        capacity: what fits into its memory; None while unknown.
        preparing: what it makes ready for use, or tried to in vain: models, ControlNets and LoRAs.
        ready: names, as in `JobParameters.needs`, of what it can use without a download.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    state: str
    reason: str = ""
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
    preparing: list[Preparation] = Field(default_factory=list)
    ready: list[str] = Field(default_factory=list)

    @field_validator("capacity", mode="wrap")
    @classmethod
    def _ignore_other_versions(cls, value: object, validate: ValidatorFunctionWrapHandler) -> Capacity | None:
        """Treat the capacity as unknown if a worker of another version describes it differently."""
        try:
            return cast("Capacity | None", validate(value))
        except ValidationError:
            return None


def publish(connection: Redis, report: WorkerReport, ttl_seconds: float) -> None:
    """Write a report that expires after `ttl_seconds` on Redis' clock; also while Redis' memory is full."""
    Scripts(connection).run(
        "publish_report", id=report.id, report=report.model_dump_json(), ttl_seconds=math.ceil(ttl_seconds)
    )


def withdraw(connection: Redis, worker_id: str) -> None:
    """Remove the report of a worker that shuts down."""
    connection.delete(keys.WORKER + worker_id)
    connection.zrem(keys.WORKERS, worker_id)


def read_workers(connection: Redis) -> list[WorkerReport]:
    """Return the reports of all live workers, ordered by id."""
    ids = sorted(cast("list[str]", connection.zrange(keys.WORKERS, 0, -1)))
    reports = connection.mget([keys.WORKER + id for id in ids]) if ids else []
    return list(_read(ids, cast("list[str | None]", reports)))


def is_ready(name: str, reports: Iterable[WorkerReport]) -> bool:
    """Whether a live worker can use something (named as in `JobParameters.needs`) without a download."""
    return any(name in report.warm or name in report.ready for report in reports)


def preparation_of(name: str, reports: Iterable[WorkerReport]) -> Preparation | None:
    """How its preparation goes on, on the worker that is furthest; None where none is under way or needed."""
    reports = list(reports)
    if is_ready(name, reports):
        return None
    found = [preparation for report in reports for preparation in report.preparing if preparation.name == name]
    order = (FETCHING, READING, WAITING, RETRYING)
    rank = {state: place for place, state in enumerate(order)}
    found.sort(key=lambda one: (rank.get(one.state, len(order)), -(one.bytes_done or 0)))
    return found[0] if found else None


def obstacle(name: str, report: WorkerReport) -> Preparation | None:
    """The preparation that keeps a worker from using something now; None where nothing is known to do so."""
    found = next((preparation for preparation in report.preparing if preparation.name == name), None)
    if found is None or name in report.warm:
        return None
    return None if name in report.ready and found.state in (WAITING, READING) else found


def _read(ids: list[str], reports: list[str | None]) -> Iterator[WorkerReport]:
    """Yield the reports that exist; of a worker whose version writes them differently, only that it lives."""
    for id, text in zip(ids, reports, strict=True):
        if text is None:
            continue
        try:
            yield WorkerReport.model_validate_json(text)
        except ValidationError as error:
            _log.warning("the report of worker %s cannot be read: %d problems", id, error.error_count())
            yield WorkerReport(id=id, state="unreadable")
