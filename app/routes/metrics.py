"""The service's figures, for Prometheus."""

from __future__ import annotations

from contextlib import suppress

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder
from redis.exceptions import RedisError

from app.dependencies.services import ONLY_MEASURERS, TheLedger, ThePrometheusCollector
from app.openapi.routes import problems

router = APIRouter(tags=["health"])

_TEXT = {"schema": {"type": "string"}, "example": 'darkroom_workers{state="idle"} 1.0\n'}


@router.get(
    "/metrics",
    response_class=Response,
    dependencies=[ONLY_MEASURERS],
    openapi_extra={"security": [{"HTTPBearer": []}, {}]},
    responses={200: {"description": "As asked for", "content": {"text/plain": _TEXT}}, **problems(401, 403)},
)
def show_metrics(request: Request, exposition: ThePrometheusCollector, ledger: TheLedger) -> Response:
    """The figures of the whole service, whichever of its API processes is asked; `darkroom_redis_up 0` and no
    others while Redis is away.
    """
    with suppress(RedisError):  # what this process has counted is posted later, then
        ledger.post()
    encode, media_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(exposition.registry), media_type=media_type)
