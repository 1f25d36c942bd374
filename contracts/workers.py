"""What workers tell of themselves: one Redis string each, that vanishes when they fall silent."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field
from redis import Redis


class WorkerReport(BaseModel):
    """A worker's own account.

    Attributes:
        state: `starting` until its warm list is loaded, then `idle` or `busy`; `draining` after SIGTERM.
        warm: models that are ready to run.
        placement: model -> component -> device.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    state: str
    device: str = ""
    pid: int = 0
    host: str = ""
    budget_bytes: int | None = None
    resident_bytes: int | None = None
    warm: list[str] = Field(default_factory=list)
    adapters: dict[str, list[str]] = Field(default_factory=dict)
    placement: dict[str, dict[str, str]] = Field(default_factory=dict)
    current_jobs: list[str] = Field(default_factory=list)
    counters: dict[str, int] = Field(default_factory=dict)


def publish(connection: Redis, report: WorkerReport, ttl_seconds: float) -> None:
    """Write the report; it lasts for `ttl_seconds`."""
    connection.set(f"darkroom:worker:{report.id}", report.model_dump_json(), ex=math.ceil(ttl_seconds))


def withdraw(connection: Redis, worker_id: str) -> None:
    """Forget a worker that leaves in order."""
    connection.delete(f"darkroom:worker:{worker_id}")


def read_workers(connection: Redis) -> list[WorkerReport]:
    """Reports of all live workers, by id."""
    keys = sorted(connection.scan_iter("darkroom:worker:*", count=1000))
    reports = connection.mget(keys) if keys else []
    return [WorkerReport.model_validate_json(text) for text in reports if text is not None]
