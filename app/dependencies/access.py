"""Providers that decide who may do what: the principal, its scopes and its rate, its own jobs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Annotated

from fastapi import Depends, Path, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.auth import Principal, read_token
from app.dependencies.queries import refuse_unknown_parameters
from app.dependencies.services import services_of
from app.dependencies.web_pages import refuse_foreign_origin, refuse_foreign_page
from app.errors import rate_headers
from contracts.auth.api_keys import Scope
from contracts.auth.signed_links import Query
from contracts.catalogue.catalogue import Catalogue
from contracts.errors import Gone, LinkRefused, NotFound, Unavailable
from contracts.jobs.records import JobRecord
from contracts.queue.client import JobQueue

_JobId = Annotated[str, Path(description="Id of the job.")]


async def _authenticate(request: Request) -> None:
    request.state.principal = await _principal_of_credentials(request)
    refuse_unknown_parameters(request)


async def _authenticate_by_password_too(request: Request) -> None:
    request.state.principal = await _principal_of_credentials(request, takes_password=True)
    refuse_unknown_parameters(request)


async def _principal_of_credentials(request: Request, *, takes_password: bool = False) -> Principal:
    services = services_of(request)
    authorization = request.headers.get("authorization")
    principal = await services.authenticator.authenticate(authorization, takes_password=takes_password)
    if not principal.has_key:
        refuse_foreign_page(request, services.settings)
    elif read_token(authorization) is None:
        refuse_foreign_origin(request, services.settings)  # browsers send passwords by themselves
    return principal


#: The first provider of every protected route, so that nothing else is read of an unauthenticated request. It also
#: refuses unknown query parameters: a provider of its own for that would cost as much as the whole of this one.
AUTHENTICATED = Depends(_authenticate)
#: The same, where the API key may also be the password of Basic authentication.
AUTHENTICATED_BY_PASSWORD_TOO = Depends(_authenticate_by_password_too)


def principal_of(request: Request) -> Principal:
    """The principal of a request that `AUTHENTICATED` has let in."""
    principal: Principal = request.state.principal
    return principal


async def _principal(request: Request) -> Principal:
    return principal_of(request)


async def require_generate(request: Request, response: Response) -> None:
    """Require the scope `generate` for a call that writes, and count it against the key's rate.

    Raises:
        Forbidden: the key lacks the scope.
        RateExceeded: as many calls were made in the last minute as may be.
    """
    principal_of(request).require(Scope.GENERATE)
    await _count_call(request, response)


async def _count_call(request: Request, response: Response) -> None:
    principal = principal_of(request)
    if principal.calls_per_minute is not None:
        api_keys = services_of(request).api_keys
        left = await run_in_threadpool(api_keys.count_call, principal.key_id, principal.calls_per_minute)
        response.headers.update(rate_headers(left.limit, left.remaining, left.reset_seconds))


async def _count_list(request: Request, response: Response) -> None:
    list_rate = services_of(request).list_rate
    if list_rate is not None:
        left = list_rate.count(principal_of(request).key_id)
        response.headers.update(rate_headers(left.limit, left.remaining, left.reset_seconds))


async def _require_admin(request: Request) -> None:
    principal_of(request).require(Scope.ADMIN)


async def _require_metrics_access(request: Request) -> None:
    """Admins only, unless the operator opens the metrics. Without Redis everybody may see that Redis is away."""
    services = services_of(request)
    if not services.settings.open_metrics:
        # From any host: Prometheus addresses containers by their names.
        with suppress(Unavailable):
            (await services.authenticator.authenticate(request.headers.get("authorization"))).require(Scope.ADMIN)


def _visible_catalogue(request: Request) -> Catalogue:
    services = services_of(request)
    return services.adapters.extend(services.catalogue, principal_of(request).owner)


def _own_job(id: _JobId, request: Request) -> JobRecord:
    return _fetch_own(id, services_of(request).queue, principal_of(request))


async def _image_job(
    id: _JobId, n: Annotated[int, Path(description="Number of the image, counted from 0.")], request: Request
) -> JobRecord:
    """The job of an image: any owner's with a signed link, else the principal's own."""
    check = partial(services_of(request).link_signer.check_image, id, n)
    return await _job_of_link(id, request, check)


async def _events_job(id: _JobId, request: Request) -> JobRecord:
    """The job of an event stream: any owner's with a signed link, else the principal's own."""
    return await _job_of_link(id, request, partial(services_of(request).link_signer.check_events, id))


async def _job_of_link(id: str, request: Request, check: Callable[[Query], None]) -> JobRecord:
    services = services_of(request)
    query = request.query_params.multi_items()
    if any(name in ("expires", "signature") for name, _ in query):
        try:
            await run_in_threadpool(check, query)
        except LinkRefused:
            if "authorization" not in request.headers:
                raise
        else:
            return await run_in_threadpool(services.queue.fetch, id)
    principal = await _principal_of_credentials(request)
    refuse_unknown_parameters(request)
    return await run_in_threadpool(_fetch_own, id, services.queue, principal)


def _fetch_own(id: str, queue: JobQueue, principal: Principal) -> JobRecord:
    """The principal's job with this id; another owner's job is reported as not found."""
    try:
        record = queue.fetch(id)
    except Gone as gone:
        if gone.owner != principal.owner:
            raise NotFound("job", id) from None
        raise
    if record.owner != principal.owner:
        raise NotFound("job", id)
    return record


ADMINS_ONLY = Depends(_require_admin)
#: for calls that list something, which take longer than other reads
LIST_LIMITED = Depends(_count_list)
#: for calls that write, and check the scope themselves
RATE_LIMITED = Depends(_count_call)
#: for calls that write and read no body; providers of bodies require it themselves
GENERATE_ONLY = Depends(require_generate)
METRICS_ACCESS = Depends(_require_metrics_access)
PrincipalDep = Annotated[Principal, Depends(_principal)]
#: the operator's catalogue and the uploaded LoRAs that the principal may use
VisibleCatalogueDep = Annotated[Catalogue, Depends(_visible_catalogue)]
OwnJobDep = Annotated[JobRecord, Depends(_own_job)]
ImageJobDep = Annotated[JobRecord, Depends(_image_job)]
EventsJobDep = Annotated[JobRecord, Depends(_events_job)]
