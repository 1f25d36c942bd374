"""What a call brings that makes something: its body, read once and bounded, its key, its wish to wait.

`Depends` providers, as in `dependencies`, on which they stand. Knows no single route.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.concurrency import run_in_threadpool

from app.dependencies.services import TheInputs, TheLinks, TheMaker, ThePrincipal, services_of
from app.dialects.openai_requests import EditRequest, form_to_json
from app.errors import WrongMediaType
from app.events.waiting import read_preference
from app.middleware.request_id import request_id_of
from app.parsing.bodies import FORM_OVERHEAD_BYTES, read_body, read_form, unpack_file
from app.parsing.spooled_files import SpooledFile, media_type, spool_file
from app.submission.idempotency import Repeats
from app.submission.submit import Submission
from contracts.queue.idempotency import Call

#: What a form of an OpenAI edit may hold: OpenAI takes 16 pictures and a mask, and we say why we do not.
_EDIT_FILES, _EDIT_FIELDS = 20, 100


async def _json_body(request: Request, maker: TheMaker) -> bytes:
    del maker  # nothing is read of those who may not send it
    settings = services_of(request).settings
    raw = await read_body(request, settings.max_body_bytes, settings.upload_timeout_seconds)
    kind = media_type(request)
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise WrongMediaType(f"the body is {kind}; send JSON with Content-Type: application/json")
    return raw


async def _picture_body(request: Request, maker: TheMaker) -> bytes:
    del maker  # as above
    settings = services_of(request).settings
    bound = settings.max_image_bytes + FORM_OVERHEAD_BYTES
    raw = await read_body(request, bound, settings.upload_timeout_seconds)
    kind = media_type(request)
    if kind == "multipart/form-data":
        return await unpack_file(request, raw)
    if kind and not kind.startswith("image/") and kind != "application/octet-stream":
        raise WrongMediaType(
            f"the body is {kind}; send the picture's bytes as image/…, or a form with a field `file`"
        )
    return raw


async def _edit_body(request: Request, maker: TheMaker) -> bytes:
    del maker  # as above
    settings = services_of(request).settings
    raw = await read_body(request, settings.max_body_bytes, settings.upload_timeout_seconds)
    kind = media_type(request)
    if kind == "multipart/form-data":
        fields = await read_form(request, raw, max_files=_EDIT_FILES, max_fields=_EDIT_FIELDS)
        return await run_in_threadpool(form_to_json, EditRequest, fields)
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise WrongMediaType(f"the body is {kind}; send a form, multipart/form-data, or JSON")
    return raw


async def _wait_seconds(
    request: Request,
    prefer: Annotated[
        str | None, Header(description="`wait` or `wait=N`: answer when the job has ended, or after N seconds")
    ] = None,
) -> int | None:
    del prefer  # documented here, and read with its repetitions there
    return read_preference(request)


IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=255, description="the same key and call within 24 h make it once"),
]


async def _dry_acceptance(
    request: Request, inputs: TheInputs, links: TheLinks, caller: ThePrincipal
) -> Submission:
    services = services_of(request)
    return Submission(
        catalogue=services.catalogue,
        shelf=services.shelf,
        inputs=inputs,
        queue=services.queue,
        storage=services.storage,
        bells=services.bells,
        links=links,
        caller=caller,
        outbound=services.settings.outbound,
        prospects=services.prospects,
        wait_seconds=None,
        max_waiting=services.settings.max_waiting,
        idempotency=services.idempotency,
        call=None,
        request_id=request_id_of(request),
    )


#: Makes the acceptance of a call with this body, for a client that does not wait.
Intake = Callable[[bytes], Submission]


async def _intake(
    request: Request, dry: DryAcceptance, caller: ThePrincipal, idempotency_key: IdempotencyKey = None
) -> Intake:
    key, target = idempotency_key, f"{request.method} {request.url.path}"
    return lambda raw: replace(dry, call=None if key is None else Call(caller.owner, key, target, raw))


async def _acceptance(raw: JsonBody, intake: TheIntake, wait_seconds: WaitSeconds) -> Submission:
    return replace(intake(raw), wait_seconds=wait_seconds)


async def _repeats(request: Request, caller: ThePrincipal, idempotency_key: IdempotencyKey = None) -> Repeats:
    target = f"{request.method} {request.url.path}"
    return Repeats(services_of(request).idempotency, caller.owner, target, idempotency_key)


async def _lora_file(request: Request, maker: TheMaker) -> AsyncGenerator[SpooledFile, None]:
    del maker  # nothing is read of those who may not send it
    settings = services_of(request).settings
    kind = media_type(request)
    if kind not in ("", "multipart/form-data", "application/octet-stream"):
        raise WrongMediaType(
            f"the body is {kind}; send the file as application/octet-stream, or a form with a field `file`"
        )
    async with spool_file(request, settings.max_lora_bytes, settings.lora_timeout_seconds) as file:
        yield file


WaitSeconds = Annotated[int | None, Depends(_wait_seconds)]
TheRepeats = Annotated[Repeats, Depends(_repeats)]
#: for a call that makes nothing, and so takes no key
DryAcceptance = Annotated[Submission, Depends(_dry_acceptance)]
TheIntake = Annotated[Intake, Depends(_intake)]
TheSubmission = Annotated[Submission, Depends(_acceptance)]
LoraFile = Annotated[SpooledFile, Depends(_lora_file)]
JsonBody = Annotated[bytes, Depends(_json_body)]
EditBody = Annotated[bytes, Depends(_edit_body)]
PictureBody = Annotated[bytes, Depends(_picture_body)]
