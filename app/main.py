"""Builds the HTTP API: routes, middleware, error handlers, and the services that live as long as it runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from app import error_handlers
from app.dependencies.access import AUTHENTICATED, AUTHENTICATED_BY_PASSWORD_TOO
from app.dependencies.queries import KNOWN_PARAMETERS_ONLY
from app.dialects.a1111.responses import A1111
from app.dialects.huggingface.errors import HUGGING_FACE
from app.dialects.openai.batches.feeder import feeding
from app.dialects.openai.responses import OPENAI
from app.dialects.replicate.schema import REPLICATE
from app.inputs.decoder import ImageDecoder
from app.middleware.access_log import AccessLogMiddleware
from app.middleware.cors import allow_origins
from app.middleware.head import HeadMiddleware
from app.middleware.public_url import PublicUrlMiddleware
from app.middleware.request_id import RequestIdMiddleware
from app.middleware.tracing import TracingMiddleware
from app.middleware.unread_body import UnreadBodyMiddleware
from app.openapi.document import DocumentedApi
from app.openapi.routes import TAGS, operation_id, problems
from app.routes import (
    a1111,
    a1111_lists,
    admin_jobs,
    admin_keys,
    admin_queues,
    catalogue,
    controlnets,
    events,
    health,
    huggingface,
    images,
    ip_adapters,
    jobs,
    loras,
    metrics,
    models,
    openai,
    openai_batches,
    openai_files,
    page,
    plan,
    png_info,
    preprocess,
    provenance,
    replicate,
    replicate_files,
    replicate_models,
    tasks,
    textual_inversions,
    trainings,
    uploads,
    usage,
    webhook_secrets,
    webhooks,
    workers,
)
from app.services import open_services
from app.settings import ApiSettings
from contracts.metrics import Counters
from contracts.outbound.signing import read_configured
from contracts.requests.model_defaults import read_checked_catalogue
from contracts.tracing.tracing import NO_TRACING, Tracing

#: FastAPI's own spans, metrics and logs stay off, whatever its variables say: they have queries, which carry
#: signatures, and one span for each provider of each request.
_NO_TELEMETRY_OF_FASTAPI = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
_TITLE = "Darkroom"


def create_app(
    settings: ApiSettings, tracing: Tracing = NO_TRACING, decoder: ImageDecoder | None = None
) -> FastAPI:
    """Build the application. It starts without Redis too, and answers 503 until Redis is there.

    Args:
        tracing: writes the spans of its requests; the caller closes it.
        decoder: decodes images for several applications of one process; the caller closes it. None: its own.

    Raises:
        CatalogueError: the catalogue file is invalid.
        SettingsError: a webhook secret in the settings is invalid.
    """
    read_configured(settings.shared)
    offered, counters = read_checked_catalogue(settings.shared.catalogue), Counters()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings, offered, counters, tracing, decoder) as services, feeding(services):
            app.state.services = services
            yield

    app = DocumentedApi(
        offered,
        lambda: json.loads(_describe(with_page=settings.page)),
        title=_TITLE,
        lifespan=lifespan,
        generate_unique_id_function=operation_id,
        telemetry=_NO_TELEMETRY_OF_FASTAPI,
    )
    error_handlers.install(app, [*OPENAI, HUGGING_FACE, REPLICATE, *A1111])
    _add_middleware(app, settings, counters, tracing)
    app.router.routes.extend(_routes(with_page=settings.page))
    return app


def _add_middleware(app: FastAPI, settings: ApiSettings, counters: Counters, tracing: Tracing) -> None:
    """From the innermost to the outermost."""
    app.add_middleware(HeadMiddleware)
    allow_origins(app, settings.cors_origins)
    app.add_middleware(UnreadBodyMiddleware)
    app.add_middleware(AccessLogMiddleware, counters=counters)
    app.add_middleware(TracingMiddleware, tracing=tracing)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(PublicUrlMiddleware, url=settings.public_base)


@cache
def _routes(*, with_page: bool) -> tuple[BaseRoute, ...]:
    """All routes.

    FastAPI analyses each at the first call that it is compared with, 0.2 s for all of them, and keeps the result
    with the route: here once for all applications of a process, of which tests build thousands.
    """
    router = APIRouter(generate_unique_id_function=operation_id)
    making = (tasks, plan, png_info, preprocess)
    files = (uploads, loras, textual_inversions, ip_adapters, controlnets)
    native = (*making, trainings, jobs, *files, models, catalogue)
    operations = (workers, webhook_secrets, usage)
    dialects = (openai, openai_files, openai_batches, huggingface, replicate, replicate_models, replicate_files)
    admin = (admin_jobs, admin_queues, admin_keys)
    for module in (*native, *operations, *dialects, *admin):
        router.include_router(
            module.router,
            dependencies=[AUTHENTICATED],
            responses=problems(401, 403, 421, 422),
        )
    for module in (a1111, a1111_lists):
        router.include_router(
            module.router,
            dependencies=[AUTHENTICATED_BY_PASSWORD_TOO],
            responses=problems(401, 403, 421, 422),
        )
    for open_router in (images.router, events.router, replicate.stream_router):
        router.include_router(open_router)
    for module in (health, metrics, provenance):
        router.include_router(module.router, dependencies=[KNOWN_PARAMETERS_ONLY], responses=problems(422))
    if with_page:
        router.include_router(page.router)
    return tuple(router.routes)


@cache
def _describe(*, with_page: bool) -> str:
    """FastAPI's own document of all routes, as JSON; like them once for all applications: it takes a second."""
    calls = APIRouter(generate_unique_id_function=operation_id)
    calls.include_router(webhooks.router)
    document = get_openapi(
        title=_TITLE,
        version="1",
        description="Image generation as jobs: send JSON, get images and a receipt that says how they were made.",
        routes=_routes(with_page=with_page),
        webhooks=calls.routes,
        tags=TAGS,
    )
    return json.dumps(document)
