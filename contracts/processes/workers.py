"""Workers' reports: one Redis string for each worker, which expires when the worker stops writing it.

A sorted set holds the workers' ids, so that they can be listed without a scan of all keys.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from typing import Annotated, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
)
from redis import Redis

from contracts.jobs.preparations import FAILED, FETCHING, READING, RETRYING, WAITING, Preparation
from contracts.memory.planner import Capacity
from contracts.redis import keys
from contracts.redis.connection import Scripts

_log = logging.getLogger(__name__)

#: States in which a worker claims jobs, unless an operator has drained it; and what is shown of it then.
_CLAIMING = frozenset({"starting", "idle", "busy"})
_DRAINED = {
    "state": "paused",
    "reason": "drained by the operator: `darkroom admin undrain` lets it take jobs again",
}


class ModelReport(BaseModel):
    """The memory that one model uses in a worker."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    plan: str = Field("", description="Name of the last memory plan; empty while the model is in host memory.")
    planned_bytes: int | None = Field(
        None, description="Device memory in bytes that the plan needs while a job runs; null before the first job."
    )
    resident_bytes: int = Field(0, description="Device memory in bytes between jobs, adapters included.")
    host_bytes: int = Field(0, description="Host memory in bytes.")
    kernels: dict[str, str] = Field(
        default_factory=dict,
        description="Implementations that computed its last job: `attention`, `channels_last`, `compile` -> "
        "value.",
    )


class CacheReport(BaseModel):
    """Counts of the cache of prompt embeddings since the worker's start."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    hits: int = Field(0, description="Prompts whose embeddings were in the cache.")
    misses: int = Field(0, description="Prompts that had to be encoded.")
    entries: int = Field(0, description="Embeddings in the cache now.")
    bytes: int = Field(0, description="Bytes in the cache now.")
    budget_bytes: int = Field(0, description="Maximum of the cache in bytes.")


class WorkerReport(BaseModel):
    """The state of a worker, as it reports it."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    id: str = Field(description="Id of the worker.")
    state: str = Field(
        description="`starting` until the models of its warm list are loaded, then `idle` or `busy`; `paused` "
        "while it claims no jobs, for a `reason`; `draining` after SIGTERM; `unreadable` if it "
        "runs a release whose reports this one cannot read."
    )
    reason: str = Field("", description="Why it is paused; empty otherwise.")
    device: str = Field("", description="Device that it computes on, such as `cuda:0` or `cpu`.")
    pid: int = Field(0, description="Process id on its host.")
    host: str = Field("", description="Name of its host.")
    max_jobs: int | None = Field(
        None, description="Maximum number of jobs in progress, counting one priority and those above it."
    )
    max_rows: int | None = Field(
        None, description="Maximum number of rows in a denoiser call that several jobs share."
    )
    joins_seeds: bool = Field(
        False,
        description="Whether it joins calls of jobs whose request has a `seed` and no `batchable`, as set by "
        "`DARKROOM_WORKER_SEEDS`.",
    )
    trains: bool = Field(True, description="Whether it runs trainings, as set by `DARKROOM_WORKER_TRAINING`.")
    budget_bytes: int | None = Field(
        None, description="Device memory in bytes for weights and activations; null if it is not limited."
    )
    resident_bytes: int | None = Field(
        None, description="Weights of all models in device memory, in bytes; null while unknown."
    )
    host_bytes: int | None = Field(
        None, description="Weights of all models in host memory, in bytes; null while unknown."
    )
    warm: list[str] = Field(
        default_factory=list,
        description="Ids of the models that are loaded, in device memory or in host memory.",
    )
    in_host_memory: list[str] = Field(
        default_factory=list,
        description="Ids of the warm models that are in host memory; their next job moves them to the device.",
    )
    models: dict[str, ModelReport] = Field(
        default_factory=dict, description="Id of each warm model -> the memory that it uses."
    )
    embeddings: CacheReport = Field(
        default_factory=CacheReport,
        description="The cache of prompt embeddings, counted since the worker started.",
    )
    stage_seconds: dict[str, float] = Field(
        default_factory=dict,
        description="Stage (`load`, `encode_prompt`, `denoise`, `decode`, …) -> seconds that this worker's "
        "jobs have spent in it.",
    )
    adapters: dict[str, list[str]] = Field(
        default_factory=dict, description="Id of a model -> names of the LoRAs that are loaded with it."
    )
    placement: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="Id of a model -> component -> where its weights are."
    )
    current_jobs: list[str] = Field(default_factory=list, description="Ids of the jobs that it runs now.")
    capacity: Annotated[Capacity | None, WithJsonSchema({"type": ["object", "null"]}, mode="serialization")] = (
        Field(
            None,
            description="Sizes that its memory plans are made from; null while unknown. "
            "Internal: any release may change its fields.",
        )
    )
    preparing: list[Preparation] = Field(
        default_factory=list,
        description="Models, ControlNets and LoRAs that it is preparing, or could not prepare.",
    )
    ready: list[str] = Field(
        default_factory=list,
        description="What it has, so that no download is needed: ids of models, `controlnet:ID`, `lora:ID`, and "
        "`optimizer:adamw8bit` if it has the package bitsandbytes.",
    )

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
    connection.delete(keys.WORKER + worker_id, keys.WORKER_STATE + worker_id)
    connection.zrem(keys.WORKERS, worker_id)


def read_workers(connection: Redis) -> list[WorkerReport]:
    """Return the reports of all live workers, ordered by id."""
    with connection.pipeline(transaction=False) as pipe:
        pipe.zrange(keys.WORKERS, 0, -1)
        pipe.hkeys(keys.DRAINED)
        found, drained = pipe.execute()
    ids = sorted(cast("list[str]", found))
    reports = connection.mget([keys.WORKER + id for id in ids]) if ids else []
    return [
        report.model_copy(update=_DRAINED) if report.id in drained and report.state in _CLAIMING else report
        for report in _read(ids, cast("list[str | None]", reports))
    ]


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


def refusal_of(name: str, reports: Iterable[WorkerReport]) -> str | None:
    """Why no worker can use something, as each of those that work has found; None where one may be able to.

    Without a worker nothing is known: jobs wait for one.
    """
    working = [report for report in reports if report.state in ("idle", "busy")]
    failed = [
        found for report in working if (found := obstacle(name, report)) is not None and found.state == FAILED
    ]
    return failed[0].message if failed and len(failed) == len(working) else None


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
