"""Liveness and readiness, for supervisors and load balancers."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.dependencies.services import ServicesDep
from app.errors import NotReady
from app.openapi.routes import problems
from contracts.errors import FieldProblem

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """A successful health check."""

    status: Literal["ok", "ready"] = Field(
        description="`ok`: the process answers; `ready`: a job sent now would be run."
    )


@router.get("/healthz")
async def show_liveness() -> Health:
    """Whether this process answers requests."""
    return Health(status="ok")


@router.get("/readyz", responses=problems(503))
def show_readiness(services: ServicesDep) -> Health:
    """Whether a job sent now would be run; a 503 names what is missing or full."""
    missing = services.readiness.missing()
    if missing:
        raise NotReady([FieldProblem(part, message) for part, message in missing.items()])
    return Health(status="ready")
