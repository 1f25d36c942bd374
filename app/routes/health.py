"""Liveness and readiness, for supervisors and load balancers."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.dependencies.services import ServicesDep
from app.errors import NotReady
from app.openapi.routes import problems
from contracts.errors import FieldProblem, Unavailable
from contracts.queue.client import JobQueue
from contracts.queue.workers import read_workers
from contracts.redis.connection import redis_errors_are_unavailable

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
    """Whether a job sent now would be run; a 503 names what is missing: Redis, storage or workers."""
    missing: list[FieldProblem] = []
    try:
        services.storage.check()
    except Unavailable as error:
        missing.append(FieldProblem("storage", str(error)))
    try:
        missing += _missing_workers(services.queue)
    except Unavailable as error:
        missing.append(FieldProblem("redis", str(error)))
    if missing:
        raise NotReady(missing)
    return Health(status="ready")


def _missing_workers(queue: JobQueue) -> list[FieldProblem]:
    """Why no worker would take a job; empty if one would."""
    with redis_errors_are_unavailable():
        reports = read_workers(queue.connection)
    if any(report.state in ("idle", "busy") for report in reports):
        return []
    paused = dict.fromkeys(report.reason for report in reports if report.state == "paused")
    if paused:
        return [FieldProblem("workers", f"every worker is paused: {'; '.join(paused)}")]
    return [FieldProblem("workers", "no worker is idle or busy")]
