"""Liveness and readiness, for supervisors and load balancers."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.dependencies.services import TheQueue, TheStorage
from app.errors import NotReady
from app.openapi.routes import problems
from contracts.errors import FieldProblem, Unavailable
from contracts.queue.client import JobQueue
from contracts.queue.workers import read_workers
from contracts.redis.connection import redis_errors_are_unavailable

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok", "ready"]


@router.get("/healthz")
async def show_liveness() -> Health:
    """Whether this process answers at all."""
    return Health(status="ok")


@router.get("/readyz", responses=problems(503))
def show_readiness(queue: TheQueue, storage: TheStorage) -> Health:
    """Whether a job sent now would be served; a 503 names what is missing."""
    missing: list[FieldProblem] = []
    try:
        storage.check()
    except Unavailable as error:
        missing.append(FieldProblem("storage", str(error)))
    try:
        if not _is_a_worker_there(queue):
            missing.append(FieldProblem("workers", "no worker is idle or busy"))
    except Unavailable as error:
        missing.append(FieldProblem("redis", str(error)))
    if missing:
        raise NotReady(missing)
    return Health(status="ready")


def _is_a_worker_there(queue: JobQueue) -> bool:
    with redis_errors_are_unavailable():
        return any(report.state in ("idle", "busy") for report in read_workers(queue.connection))
