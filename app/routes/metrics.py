"""The route of the Prometheus metrics."""

from __future__ import annotations

from contextlib import suppress

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder
from redis.exceptions import RedisError

from app.dependencies.access import METRICS_ACCESS
from app.dependencies.services import ServicesDep
from app.openapi.routes import problems

router = APIRouter(tags=["health"])

_TEXT = {"schema": {"type": "string"}, "example": 'darkroom_workers{state="idle"} 1.0\n'}


@router.get(
    "/metrics",
    response_class=Response,
    dependencies=[METRICS_ACCESS],
    openapi_extra={"security": [{"HTTPBearer": []}, {}]},
    responses={
        200: {"description": "Metrics in the format that `Accept` asks for", "content": {"text/plain": _TEXT}},
        **problems(401, 403),
    },
)
def show_metrics(request: Request, services: ServicesDep) -> Response:
    """Metrics of the whole service, the same from each API process; only `darkroom_redis_up 0` without Redis."""
    with suppress(RedisError):  # this process's counts are written with the next post then
        services.totals.flush()
    encode, media_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(services.prometheus.registry), media_type=media_type)
