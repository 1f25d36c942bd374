"""Providers of calls that create something: the context of a submission, and the client's idempotency key."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header, Request

from app.dependencies.access import principal_of
from app.dependencies.services import links_of, services_of
from app.events.waiting import MAX_WAIT_SECONDS, read_preference
from app.middleware.request_id import request_id_of
from app.middleware.tracing import trace_context_of
from app.submission.checks import RequestChecks
from app.submission.idempotency import IdempotentCall
from app.submission.retries import ClientRetry
from app.submission.submit import Submission
from contracts.errors import FieldProblem, InvalidRequest
from contracts.queue.idempotency import FIELD

_IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Any text. A call that is repeated with the same key within 24 hours returns what "
        "the first one created instead of creating it again. Default: none.",
    ),
]
_Prefer = Annotated[
    str | None,
    Header(
        description="`wait` or `wait=N`: answer when the job has ended, or with the job as it is after N seconds "
        f"(1–{MAX_WAIT_SECONDS}, others are moved to the nearest; `wait` alone: {MAX_WAIT_SECONDS}). "
        "Default: answer at once."
    ),
]


async def _idempotent_call(request: Request, idempotency_key: _IdempotencyKey = None) -> IdempotentCall:
    return _call_of(request, idempotency_key)


async def _submission(request: Request, idempotency_key: _IdempotencyKey = None) -> Submission:
    return _submission_of(request, idempotency_key, None)


async def _held_submission(request: Request, idempotency_key: _IdempotencyKey = None) -> Submission:
    return _submission_of(request, idempotency_key, None, is_held=True)


async def _waiting_submission(
    request: Request, idempotency_key: _IdempotencyKey = None, prefer: _Prefer = None
) -> Submission:
    del prefer  # declared for the OpenAPI document; a request may send the header more than once
    return _submission_of(request, idempotency_key, read_preference(request))


async def _checks(request: Request) -> RequestChecks:
    return RequestChecks(services_of(request), principal_of(request), links_of(request))


def _submission_of(
    request: Request, idempotency_key: str | None, wait_seconds: int | None, *, is_held: bool = False
) -> Submission:
    async def client_left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return Submission(
        services=services_of(request),
        principal=principal_of(request),
        links=links_of(request),
        call=_call_of(request, idempotency_key),
        wait_seconds=wait_seconds,
        is_held=is_held,
        retry=_retry_of(request),
        client_left=client_left,
        request_id=request_id_of(request),
        trace_context=trace_context_of(request),
    )


def _retry_of(request: Request) -> ClientRetry:
    """What the client's library says of retries: those made by Stainless, OpenAI's among them, count them."""
    services, principal = services_of(request), principal_of(request)
    text = request.headers.get("x-stainless-retry-count", "")
    count = int(text) if re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) else None
    return ClientRetry(services.retries, services.queue, f"{principal.owner}:{principal.key_id}", count)


def _call_of(request: Request, idempotency_key: str | None) -> IdempotentCall:
    if len(request.headers.getlist(FIELD)) > 1:
        raise InvalidRequest([FieldProblem(FIELD, "is sent more than once; send one")])
    return IdempotentCall(
        idempotency=services_of(request).idempotency,
        owner=principal_of(request).owner,
        target=f"{request.method} {request.scope['path']}",
        key=idempotency_key,
    )


IdempotentCallDep = Annotated[IdempotentCall, Depends(_idempotent_call)]
#: for a call that is answered at once
SubmissionDep = Annotated[Submission, Depends(_submission)]
#: for a call that is answered when its job has ended, whatever the client prefers
HeldSubmissionDep = Annotated[Submission, Depends(_held_submission)]
WaitingSubmissionDep = Annotated[Submission, Depends(_waiting_submission)]
#: for a call that creates nothing, and so takes no idempotency key
ChecksDep = Annotated[RequestChecks, Depends(_checks)]
