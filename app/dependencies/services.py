"""What routes are given: the only `Depends` providers. Opens nothing; `main.py` does."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPBearer

from app.auth import Authenticator, Principal
from app.errors import rate_headers
from app.events.notifier import JobNotifier
from app.inputs.decoder import ImageDecoder
from app.inputs.fetcher import Fetcher
from app.inputs.reader import InputReader
from app.prometheus import PrometheusCollector
from app.settings import ApiSettings
from app.submission.admission import Admission
from contracts.auth.api_keys import ApiKeyStore, Scope
from contracts.auth.signed_links import LinkSigner
from contracts.catalogue.catalogue import Catalogue
from contracts.errors import Gone, LinkRefused, NotFound, Unavailable
from contracts.job_view import Links
from contracts.metrics import TotalsWriter
from contracts.queue.client import JobQueue
from contracts.queue.idempotency import Idempotency
from contracts.queue.records import JobRecord
from contracts.storage import Storage
from contracts.uploads.loras import LoraRegistry
from contracts.uploads.retention import Retention


@dataclass(frozen=True)
class Services:
    """What one running API holds open."""

    settings: ApiSettings
    bells: JobNotifier
    catalogue: Catalogue
    idempotency: Idempotency
    decoder: ImageDecoder
    door: Authenticator
    keys: ApiKeyStore
    exposition: PrometheusCollector
    shelf: LoraRegistry
    fetcher: Fetcher | None
    ledger: TotalsWriter
    prospects: Admission
    queue: JobQueue
    retention: Retention
    signer: LinkSigner
    storage: Storage


def services_of(request: Request) -> Services:
    """What the API that got this request holds open."""
    services: Services = request.app.state.services
    return services


# FastAPI walks the whole tree of providers for each request, and a provider again wherever it stands. So they
# ask for the request, and not for one another where they need not.


async def _services(request: Request) -> Services:
    return services_of(request)


AnyService = Annotated[Services, Depends(_services)]


async def _settings(request: Request) -> ApiSettings:
    return services_of(request).settings


async def _catalogue(request: Request) -> Catalogue:
    return services_of(request).catalogue


async def _queue(request: Request) -> JobQueue:
    return services_of(request).queue


async def _prospects(request: Request) -> Admission:
    return services_of(request).prospects


async def _retention(request: Request) -> Retention:
    return services_of(request).retention


async def _storage(request: Request) -> Storage:
    return services_of(request).storage


async def _decoder(request: Request) -> ImageDecoder:
    return services_of(request).decoder


async def _exposition(request: Request) -> PrometheusCollector:
    return services_of(request).exposition


async def _ledger(request: Request) -> TotalsWriter:
    return services_of(request).ledger


async def _caller(request: Request) -> Principal:
    return await services_of(request).door.admit(request.headers.get("authorization"))


async def _shelf(request: Request) -> LoraRegistry:
    return services_of(request).shelf


def _visible_catalogue(request: Request, caller: ThePrincipal) -> Catalogue:
    """With the adapters that were uploaded and that the caller sees."""
    services = services_of(request)
    return services.shelf.extend(services.catalogue, caller.owner)


async def _maker(request: Request, caller: ThePrincipal, response: Response) -> Principal:
    """A caller who may make things; the call counts, whatever becomes of it."""
    caller.require(Scope.GENERATE)
    if caller.key_id is not None and caller.calls_per_minute is not None:
        keys = services_of(request).keys
        left = await run_in_threadpool(keys.spend, caller.key_id, caller.calls_per_minute)
        response.headers.update(rate_headers(left.limit, left.remaining, left.reset_seconds))
    return caller


async def _admin(caller: ThePrincipal) -> None:
    caller.require(Scope.ADMIN)


async def _measurer(request: Request) -> None:
    """Whoever may see the figures; while Redis is away there are none, and everybody may see that."""
    services = services_of(request)
    if not services.settings.open_metrics:
        with suppress(Unavailable):
            (await services.door.admit(request.headers.get("authorization"))).require(Scope.ADMIN)


TheSettings = Annotated[ApiSettings, Depends(_settings)]
TheCatalogue = Annotated[Catalogue, Depends(_catalogue)]
TheQueue = Annotated[JobQueue, Depends(_queue)]
TheAdmission = Annotated[Admission, Depends(_prospects)]
TheLoraRegistry = Annotated[LoraRegistry, Depends(_shelf)]
TheRetention = Annotated[Retention, Depends(_retention)]
TheStorage = Annotated[Storage, Depends(_storage)]
TheDecoder = Annotated[ImageDecoder, Depends(_decoder)]
ThePrometheusCollector = Annotated[PrometheusCollector, Depends(_exposition)]
TheLedger = Annotated[TotalsWriter, Depends(_ledger)]
ThePrincipal = Annotated[Principal, Depends(_caller)]
#: Stand before every route of a router, and so before anything is read of the request. The first documents how a
#: caller is known; what it reads is not used, since `Authenticator` reads other schemes too.
ONLY_CALLERS = (
    Depends(HTTPBearer(auto_error=False, description="an API key, made by `darkroom keys create`")),
    Depends(_caller),
)
TheMaker = Annotated[Principal, Depends(_maker)]
ONLY_ADMINS = Depends(_admin)
ONLY_MEASURERS = Depends(_measurer)


async def _links(request: Request) -> Links:
    services = services_of(request)
    return Links(str(services.settings.public_url or request.base_url).rstrip("/"), services.signer)


async def _inputs(request: Request, caller: ThePrincipal) -> InputReader:
    services = services_of(request)
    return InputReader(
        services.decoder, services.queue, services.storage, services.retention, caller.owner, services.fetcher
    )


def _own_job(id: str, request: Request, caller: ThePrincipal) -> JobRecord:
    return _fetch_own(id, services_of(request).queue, caller)


async def _shown_job(id: str, n: int, request: Request) -> JobRecord:
    """The job whose image a signed link opens; else the caller's own."""
    services = services_of(request)
    query = request.query_params.multi_items()
    authorization = request.headers.get("authorization")
    if any(name in ("expires", "signature") for name, _ in query):
        try:
            await run_in_threadpool(services.signer.check, id, n, query)
        except LinkRefused:
            if authorization is None:
                raise
        else:
            return await run_in_threadpool(services.queue.fetch, id)
    caller = await services.door.admit(authorization)
    return await run_in_threadpool(_fetch_own, id, services.queue, caller)


def _fetch_own(id: str, queue: JobQueue, caller: Principal) -> JobRecord:
    """The job with this id; another owner's is as good as none."""
    try:
        record = queue.fetch(id)
    except Gone as gone:
        if gone.owner != caller.owner:
            raise NotFound("job", id) from None
        raise
    if record.owner != caller.owner:
        raise NotFound("job", id)
    return record


TheLinks = Annotated[Links, Depends(_links)]
TheInputs = Annotated[InputReader, Depends(_inputs)]
ShownJob = Annotated[JobRecord, Depends(_shown_job)]
OwnJob = Annotated[JobRecord, Depends(_own_job)]
VisibleCatalogue = Annotated[Catalogue, Depends(_visible_catalogue)]
