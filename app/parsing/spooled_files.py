"""Spools large files of request bodies to disk, so that they are never whole in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.parsing.bodies import FORM_OVERHEAD_BYTES, limit_parts, stream_body
from app.parsing.byte_budget import Reservation
from contracts.errors import FieldProblem, InvalidRequest, StorageFull, UnreadableBody
from contracts.storage.local import FULL

#: Fields of a form beside its file; more than are used, so that an error can name one that is not.
_MAX_FIELDS = 8


@dataclass(frozen=True)
class SpooledFile:
    """A file received in a body; it is deleted when the request ends.

    Attributes:
        filename: as named in a form; else empty.
        fields: other fields of the form.
    """

    path: Path
    filename: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def media_type(request: Request) -> str:
    """Return the media type of the body without parameters; empty if the request has none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@asynccontextmanager
async def spool_file(
    request: Request, max_bytes: int, timeout_seconds: float, reservation: Reservation
) -> AsyncGenerator[SpooledFile, None]:
    """Spool the body, or the field `file` of a form.

    Raises:
        UnknownCoding: it is compressed with something else than gzip.
        BodyTooLarge: by its declared length, or while reading.
        BodyTimeout: it did not arrive in time.
        Busy: too many bytes are reserved.
        UnreadableBody: the body is not the form that its content type announces.
        InvalidRequest: the form has no file, or several.
        StorageFull: the folder for temporary files (TMPDIR) takes no more bytes.
    """
    is_form = media_type(request) == "multipart/form-data"
    bound = max_bytes + FORM_OVERHEAD_BYTES if is_form else max_bytes
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        path = Path(folder) / "file"
        async with aclosing(stream_body(request, bound, timeout_seconds, reservation)) as body:
            try:
                spooled = await (_spool_form(request, body, path) if is_form else _spool_raw(body, path))
            except OSError as error:
                if error.errno not in FULL:
                    raise
                raise StorageFull(f"no space for this body among the temporary files: {error.strerror}") from error
        yield spooled


async def _spool_raw(body: AsyncGenerator[bytes, None], path: Path) -> SpooledFile:
    with path.open("wb") as file:
        async for chunk in body:
            await run_in_threadpool(file.write, chunk)
    return SpooledFile(path)


async def _spool_form(request: Request, body: AsyncGenerator[bytes, None], path: Path) -> SpooledFile:
    try:
        # The parser keeps files of more than a megabyte on disk, too.
        parts = limit_parts(request, body, 1 + _MAX_FIELDS)
        form = await MultiPartParser(request.headers, parts, max_files=1, max_fields=_MAX_FIELDS).parse()
    except MultiPartException as error:
        raise UnreadableBody(f"the form cannot be read: {error.message}") from None
    try:
        found = form.get("file")
        if not isinstance(found, UploadFile):
            names = ", ".join(form) or "nothing"
            message = f"the form must have one file in the field file, got: {names}"
            raise InvalidRequest([FieldProblem("file", message, ["file"])])
        with path.open("wb") as file:
            await run_in_threadpool(shutil.copyfileobj, found.file, file)
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
        return SpooledFile(path, found.filename or "", texts)
    finally:
        await form.close()
