"""Puts the HTTP side together: routes, error handlers, and what it holds open while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from app import errors
from app.auth import Authenticator
from app.dependencies.services import ONLY_CALLERS, Services
from app.dialects.openai_responses import OPENAI
from app.events.notifier import JobNotifier
from app.inputs.decoder import ImageDecoder
from app.inputs.fetcher import Fetcher
from app.middleware.access_log import AccessLogMiddleware
from app.middleware.request_id import RequestIdMiddleware
from app.openapi.document import DocumentedApi
from app.openapi.routes import problems
from app.periodic import repeating
from app.prometheus import PrometheusCollector
from app.routes import (
    catalogue,
    events,
    health,
    images,
    jobs,
    loras,
    metrics,
    openai,
    plan,
    tasks,
    uploads,
    webhooks,
)
from app.settings import ApiSettings
from app.submission.admission import Admission
from contracts.auth.api_keys import ApiKeyStore
from contracts.auth.signed_links import LinkSigner
from contracts.catalogue.catalogue import read_catalogue
from contracts.metrics import Counters, TotalsWriter
from contracts.queue.client import JobQueue
from contracts.queue.idempotency import Idempotency
from contracts.storage import open_storage
from contracts.uploads.loras import LoraRegistry
from contracts.uploads.retention import Retention


def create_app(settings: ApiSettings) -> FastAPI:
    """The application. It starts, and answers 503, also while Redis is away.

    Raises:
        CatalogueError: the catalogue file does not say what it must.
    """
    rows, tally = read_catalogue(settings.shared.catalogue), Counters()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        queue, storage = JobQueue(settings.shared), open_storage(settings.shared)
        bells, keys, ledger = JobNotifier(), ApiKeyStore(queue.connection), TotalsWriter(queue.connection, tally)
        retention = Retention(queue.connection, storage, settings.shared.gone_seconds)
        app.state.services = Services(
            settings=settings,
            bells=bells,
            catalogue=rows,
            idempotency=Idempotency(queue.connection, settings.idempotency_lease_seconds),
            decoder=ImageDecoder(settings.max_image_bytes, settings.max_image_pixels),
            door=Authenticator(keys, is_open=settings.serves_everybody),
            keys=keys,
            exposition=PrometheusCollector(queue.connection),
            fetcher=_open_fetcher(settings),
            ledger=ledger,
            prospects=Admission(queue),
            queue=queue,
            shelf=LoraRegistry(queue.connection, storage, retention),
            retention=retention,
            signer=LinkSigner(queue.connection, settings.shared),
            storage=storage,
        )
        async with (
            repeating(retention.sweep, settings.sweep_seconds),
            repeating(ledger.post, settings.post_seconds, last=True),
            bells.connected(settings.shared.redis_url),
        ):
            yield
        await run_in_threadpool(queue.close)

    app = DocumentedApi(
        rows, title="Darkroom", version="1", description="JSON in, an image and a receipt out.", lifespan=lifespan
    )
    app.add_middleware(AccessLogMiddleware, tally=tally)
    app.add_middleware(RequestIdMiddleware)
    errors.install(app, [OPENAI])
    for module in (health, images, metrics):
        app.include_router(module.router)
    for module in (tasks, plan, jobs, events, uploads, loras, catalogue, openai):
        app.include_router(module.router, dependencies=ONLY_CALLERS, responses=problems(401))
    app.webhooks.include_router(webhooks.router)
    return app


def _open_fetcher(settings: ApiSettings) -> Fetcher | None:
    if not settings.fetch_images:
        return None
    return Fetcher(
        settings.outbound,
        max_bytes=settings.max_image_bytes,
        timeout_seconds=settings.fetch_timeout_seconds,
        concurrency=settings.fetch_concurrency,
    )
