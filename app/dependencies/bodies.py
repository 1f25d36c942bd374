"""Providers of request bodies: each reads one kind of body once, within the limits of size and time.

All of them require the scope `generate` first, so that nothing is read of a body that may not be sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.dependencies.access import principal_of, require_generate
from app.dependencies.services import services_of
from app.dialects.openai.forms import RequestBody, read_edit_form
from app.errors import WrongMediaType
from app.middleware.unread_body import declared_bytes
from app.parsing.bodies import FORM_OVERHEAD_BYTES, ReceivedBody, read_body, read_form, unpack_file
from app.parsing.json_bodies import as_utf8
from app.parsing.spooled_files import SpooledFile, media_type, spool_file
from contracts.errors import FieldProblem, InvalidRequest

#: Limits on the form of an OpenAI edit. OpenAI accepts 16 images and a mask; a request with more than one image
#: gets past these limits, so that its error can name the field.
_EDIT_FILES, _EDIT_FIELDS = 20, 100


async def _json_body(request: Request, response: Response) -> AsyncGenerator[ReceivedBody, None]:
    async with _received(request, response) as body:
        if body.raw and not _is_json(media_type(request)):
            raise _wrong_type(request, "JSON with Content-Type: application/json")
        body.raw = as_utf8(body.raw)
        yield body


async def _inference_body(request: Request, response: Response) -> AsyncGenerator[ReceivedBody, None]:
    async with _received(request, response) as body:
        kind = media_type(request)
        if body.raw and not _is_json(kind):
            is_text = kind.startswith("text/") or body.raw.lstrip()[:1] == b"{"
            if not is_text and (kind in ("", "application/octet-stream") or kind.startswith("image/")):
                # Their clients send an image without any parameter like this.
                message = "is required; describe the image that you want"
                raise InvalidRequest([FieldProblem("parameters.prompt", message)])
            raise _wrong_type(request, "JSON with Content-Type: application/json")
        body.raw = as_utf8(body.raw)
        yield body


async def _image_body(request: Request, response: Response) -> AsyncGenerator[bytes, None]:
    limit = services_of(request).settings.max_image_bytes + FORM_OVERHEAD_BYTES
    async with _received(request, response, limit) as body:
        kind = media_type(request)
        if kind == "multipart/form-data":
            yield await unpack_file(request, body.raw)
        elif kind.startswith("image/") or kind == "application/octet-stream" or not body.raw:
            yield body.raw
        else:
            raise _wrong_type(request, "the image as image/…, or a form with the field `file`")


async def _content_file(request: Request, response: Response) -> AsyncGenerator[bytes, None]:
    limit = services_of(request).settings.max_image_bytes + FORM_OVERHEAD_BYTES
    async with _received(request, response, limit) as body:
        if media_type(request) != "multipart/form-data":
            raise _wrong_type(request, "a form (multipart/form-data) with the file in the field `content`")
        yield await unpack_file(request, body.raw, "content", {"metadata": "{}"})


async def _edit_body(request: Request, response: Response) -> AsyncGenerator[RequestBody, None]:
    async with _received(request, response) as body:
        if media_type(request) == "multipart/form-data":
            fields = await read_form(request, body.raw, max_files=_EDIT_FILES, max_fields=_EDIT_FIELDS)
            body.raw = b""  # its bytes are in the fields now, and count until they are released
            form = await run_in_threadpool(read_edit_form, fields)
            yield RequestBody(form.json, form.files, body)
        elif _is_json(media_type(request)) or not body.raw:
            yield RequestBody(as_utf8(body.raw), received=body)
        else:
            raise _wrong_type(request, "a form (multipart/form-data) or JSON")


async def _lora_file(request: Request, response: Response) -> AsyncGenerator[SpooledFile, None]:
    async with _weights(request, response, services_of(request).settings.max_lora_bytes) as file:
        yield file


async def _controlnet_file(request: Request, response: Response) -> AsyncGenerator[SpooledFile, None]:
    async with _weights(request, response, services_of(request).settings.max_controlnet_bytes) as file:
        yield file


@asynccontextmanager
async def _weights(request: Request, response: Response, max_bytes: int) -> AsyncGenerator[SpooledFile, None]:
    """A file of weights, raw or in a form."""
    await require_generate(request, response)
    if media_type(request) not in ("multipart/form-data", "application/octet-stream"):
        raise _wrong_type(request, "the file as application/octet-stream, or a form with the field `file`")
    async with _spooled(request, max_bytes) as file:
        yield file


async def _training_body(request: Request, response: Response) -> AsyncGenerator[TrainingBody, None]:
    if media_type(request) == "multipart/form-data":
        await require_generate(request, response)
        async with _spooled(request, services_of(request).settings.max_training_bytes) as file:
            unknown = sorted(file.fields.keys() - {"request"})
            if unknown:
                raise InvalidRequest(
                    [FieldProblem(name, "unknown field", ["file", "request"]) for name in unknown]
                )
            yield TrainingBody(file.fields.get("request", "{}").encode(), file.path)
        return
    async with _received(request, response) as body:
        if body.raw and not _is_json(media_type(request)):
            raise _wrong_type(request, "JSON, or a form with the fields `file` and `request`")
        yield TrainingBody(as_utf8(body.raw))


async def _json_lines_file(request: Request, response: Response) -> AsyncGenerator[SpooledFile, None]:
    await require_generate(request, response)
    if media_type(request) != "multipart/form-data":
        raise _wrong_type(request, "a form (multipart/form-data) with the fields `file` and `purpose`")
    async with _spooled(request, services_of(request).settings.max_jsonl_bytes) as file:
        yield file


@asynccontextmanager
async def _spooled(request: Request, max_bytes: int) -> AsyncGenerator[SpooledFile, None]:
    """The file of the body, on the disk; its bytes count against the space for such files until the end."""
    services = services_of(request)
    copies = 2 if media_type(request) == "multipart/form-data" else 1
    await run_in_threadpool(_require_space, request, spooled_copies=copies)
    with services.spool_space.reserve(principal_of(request).owner) as reservation:
        timeout_seconds = services.settings.lora_timeout_seconds
        async with spool_file(request, max_bytes, timeout_seconds, reservation) as file:
            yield file


def _require_space(request: Request, spooled_copies: int) -> None:
    """Refuse a file before it is received, where its declared size does not fit."""
    space, size_bytes = services_of(request).disk_space, declared_bytes(request.headers)
    space.require(size_bytes)
    space.require_spool(size_bytes * spooled_copies)


@asynccontextmanager
async def _received(
    request: Request, response: Response, max_bytes: int | None = None
) -> AsyncGenerator[ReceivedBody, None]:
    """The whole body, in memory; its bytes count against the budget until the end, or until they are released."""
    await require_generate(request, response)
    services = services_of(request)
    settings = services.settings
    with services.body_memory.reserve(principal_of(request).owner) as reservation:
        limit = settings.max_body_bytes if max_bytes is None else max_bytes
        raw = await read_body(request, limit, settings.upload_timeout_seconds, reservation)
        yield ReceivedBody(raw, reservation)


def _wrong_type(request: Request, accepted: str) -> WrongMediaType:
    """The error for a body without a content type, or of a wrong one.

    Browsers ask before a page of another site may send any of the types that are accepted, except a form's.
    """
    kind = media_type(request)
    return WrongMediaType(f"{f'the body is {kind}' if kind else 'the body has no content type'}; send {accepted}")


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or media_type.endswith("+json")


@dataclass(frozen=True)
class TrainingBody:
    """A request for a training.

    Attributes:
        request: JSON.
        archive: zip file with images, on the disk; None where the request names them.
    """

    request: bytes
    archive: Path | None = None


#: a training as JSON, or in a form with a zip file
TrainingBodyDep = Annotated[TrainingBody, Depends(_training_body)]
JsonBodyDep = Annotated[ReceivedBody, Depends(_json_body)]
#: of a call of Hugging Face's clients
InferenceBodyDep = Annotated[ReceivedBody, Depends(_inference_body)]
ImageBodyDep = Annotated[bytes, Depends(_image_body)]
EditBodyDep = Annotated[RequestBody, Depends(_edit_body)]
#: the file of a form in the field `content`
ContentFileDep = Annotated[bytes, Depends(_content_file)]
#: of a LoRA, an IP-Adapter or a textual inversion
LoraFileDep = Annotated[SpooledFile, Depends(_lora_file)]
ControlNetFileDep = Annotated[SpooledFile, Depends(_controlnet_file)]
#: a file of requests, and the form's other fields
JsonLinesFileDep = Annotated[SpooledFile, Depends(_json_lines_file)]
