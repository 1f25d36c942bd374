"""Providers of request bodies: each reads one kind of body once, within the limits of size and time.

All of them require the scope `generate` first, so that nothing is read of a body that may not be sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.dependencies.access import require_generate
from app.dependencies.services import services_of
from app.dialects.openai_requests import RequestBody, read_edit_form
from app.errors import WrongMediaType
from app.parsing.bodies import FORM_OVERHEAD_BYTES, read_body, read_form, unpack_file
from app.parsing.spooled_files import SpooledFile, media_type, spool_file

#: Limits on the form of an OpenAI edit. OpenAI accepts 16 images and a mask; a request with more than one image
#: gets past these limits, so that its error can name the field.
_EDIT_FILES, _EDIT_FIELDS = 20, 100


async def _json_body(request: Request, response: Response) -> bytes:
    await require_generate(request, response)
    body = await _read(request)
    kind = media_type(request)
    if kind and not _is_json(kind):
        raise WrongMediaType(f"the body is {kind}; send JSON with Content-Type: application/json")
    return body


async def _image_body(request: Request, response: Response) -> bytes:
    await require_generate(request, response)
    settings = services_of(request).settings
    limit = settings.max_image_bytes + FORM_OVERHEAD_BYTES
    body = await read_body(request, limit, settings.upload_timeout_seconds)
    kind = media_type(request)
    if kind == "multipart/form-data":
        return await unpack_file(request, body)
    if kind and not kind.startswith("image/") and kind != "application/octet-stream":
        raise WrongMediaType(f"the body is {kind}; send the image as image/…, or a form with the field `file`")
    return body


async def _edit_body(request: Request, response: Response) -> RequestBody:
    await require_generate(request, response)
    body = await _read(request)
    kind = media_type(request)
    if kind == "multipart/form-data":
        fields = await read_form(request, body, max_files=_EDIT_FILES, max_fields=_EDIT_FIELDS)
        return await run_in_threadpool(read_edit_form, fields)
    if kind and not _is_json(kind):
        raise WrongMediaType(f"the body is {kind}; send a form (multipart/form-data) or JSON")
    return RequestBody(body)


async def _lora_file(request: Request, response: Response) -> AsyncGenerator[SpooledFile, None]:
    await require_generate(request, response)
    settings = services_of(request).settings
    kind = media_type(request)
    if kind not in ("", "multipart/form-data", "application/octet-stream"):
        raise WrongMediaType(
            f"the body is {kind}; send the file as application/octet-stream, or a form with the field `file`"
        )
    await run_in_threadpool(_require_space, request, spooled_copies=2 if kind == "multipart/form-data" else 1)
    async with spool_file(request, settings.max_lora_bytes, settings.lora_timeout_seconds) as file:
        yield file


def _require_space(request: Request, spooled_copies: int) -> None:
    """Refuse a file before it is received, where its declared size does not fit."""
    space, length = services_of(request).disk_space, request.headers.get("content-length", "")
    size_bytes = int(length) if length.isdecimal() else 0
    space.require(size_bytes)
    space.require_spool(size_bytes * spooled_copies)


async def _read(request: Request) -> bytes:
    settings = services_of(request).settings
    return await read_body(request, settings.max_body_bytes, settings.upload_timeout_seconds)


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or media_type.endswith("+json")


JsonBodyDep = Annotated[bytes, Depends(_json_body)]
ImageBodyDep = Annotated[bytes, Depends(_image_body)]
EditBodyDep = Annotated[RequestBody, Depends(_edit_body)]
LoraFileDep = Annotated[SpooledFile, Depends(_lora_file)]
