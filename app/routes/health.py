"""Liveness and readiness, for supervisors and load balancers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.dependencies.services import ServicesDep
from app.errors import NotReady
from app.openapi.routes import problems
from contracts.errors import FieldProblem, Unavailable
from contracts.queue.client import JobQueue
from contracts.queue.workers import read_workers
from contracts.redis.connection import check_writes, redis_errors_are_unavailable

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """A successful health check."""

    status: Literal["ok", "ready"]


@router.get("/healthz")
async def show_liveness() -> Health:
    """Whether this process answers requests."""
    return Health(status="ok")


@router.get("/readyz", responses=problems(503))
def show_readiness(services: ServicesDep) -> Health:
    """Whether a job sent now would be run; a 503 names what is missing or full."""
    checks: list[tuple[str, Callable[[], object]]] = [
        ("storage", services.storage.check),
        ("storage", services.disk_space.check_reserve),
        ("spool", services.disk_space.check_spool),
        ("redis", partial(check_writes, services.queue.connection)),
        ("workers", partial(_check_workers, services.queue)),
    ]
    missing: dict[str, str] = {}
    for field, check in checks:
        if field == "workers" and "redis" in missing:
            continue  # they are known from Redis
        try:
            check()
        except Unavailable as error:
            missing.setdefault(field, str(error))
    if missing:
        raise NotReady([FieldProblem(field, message) for field, message in missing.items()])
    return Health(status="ready")


def _check_workers(queue: JobQueue) -> None:
    """Raise Unavailable if no worker would take a job."""
    with redis_errors_are_unavailable():
        reports = read_workers(queue.connection)
    if any(report.state in ("idle", "busy") for report in reports):
        return
    paused = dict.fromkeys(report.reason for report in reports if report.state == "paused")
    raise Unavailable(f"every worker is paused: {'; '.join(paused)}" if paused else "no worker is idle or busy")
