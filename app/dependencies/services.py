"""Providers of the open services and of what a request's answer is made with.

FastAPI resolves the whole tree of providers for every request, a shared one once per place where it is named, and
each costs as much processor time as a small query. So the providers of this package take the request itself
instead of one another, and routes take `ServicesDep` instead of one provider per service.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from app.services import Services
from contracts.processes.workers import WorkerReport, read_workers
from contracts.redis.connection import redis_errors_are_unavailable
from contracts.views.links import Links


def services_of(request: Request) -> Services:
    """The open services of the API that handles this request."""
    services: Services = request.app.state.services
    return services


async def _services(request: Request) -> Services:
    return services_of(request)


def links_of(request: Request) -> Links:
    """The maker of links for this request's client: under the public URL, or the address that the request used."""
    services = services_of(request)
    return Links(services.settings.public_base or str(request.base_url).rstrip("/"), services.link_signer)


async def _links(request: Request) -> Links:
    return links_of(request)


def live_workers(services: Services) -> list[WorkerReport]:
    """The reports of all live workers; raises Unavailable if Redis does not answer."""
    with redis_errors_are_unavailable():
        return read_workers(services.queue.connection)


ServicesDep = Annotated[Services, Depends(_services)]
LinksDep = Annotated[Links, Depends(_links)]
