"""The lines of a batch's file: found a chunk at a time, parsed one by one. Does not read the requests in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from app.errors import BodyTooLarge
from app.parsing.json_bodies import as_utf8, check_json
from contracts.batches.records import Batch, LineError
from contracts.errors import DarkroomError, InvalidRequest, UnreadableBody
from contracts.storage import Storage

#: How much of a file is read at a time.
_CHUNK_BYTES = 256 * 2**10
_MAX_ID = 512
_NAMES = ("custom_id", "method", "url", "body")


@dataclass(frozen=True)
class Line:
    """A line of a file.

    Attributes:
        number: counted from 1.
        end: where the next one begins, in bytes.
        data: without the line break; None where it is longer than allowed, and then it is the last that is read.
    """

    number: int
    end: int
    data: bytes | None


@dataclass(frozen=True)
class LineRequest:
    """The request in a line, with its `body`."""

    custom_id: str
    body: dict[str, Any]

    def raw_body(self) -> bytes:
        """The body as JSON, the same bytes each time, at the lowest priority unless it names one."""
        return to_json({"priority": "low", **self.body})


class InvalidLine(DarkroomError):
    """A line that is not a request of its batch."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        self.code, self.param = code, param
        super().__init__(message)

    def at(self, number: int) -> LineError:
        """The error as clients see it."""
        return LineError(code=self.code, message=str(self)[:500], param=self.param, line=number)


def read_lines(storage: Storage, batch: Batch, max_bytes: int) -> Iterator[Line]:
    """Yield the lines for which no job was created yet; never holds more than a line and a chunk.

    Raises:
        NotFound: the file is gone.
        Unavailable: the storage does not answer.
    """
    number, position, start = batch.line, batch.offset, batch.offset
    pieces: list[bytes] = []
    while position < batch.input_bytes:
        chunk = storage.read_range(batch.input_key, position, min(_CHUNK_BYTES, batch.input_bytes - position))
        position += len(chunk)
        first = 0
        while (end := chunk.find(b"\n", first)) >= 0:
            number, data = number + 1, b"".join([*pieces, chunk[first:end]])
            pieces, first, start = [], end + 1, start + len(data) + 1
            yield Line(number, start, data if len(data) <= max_bytes else None)
        pieces.append(chunk[first:])
        if position - start > max_bytes:
            yield Line(number + 1, position, None)
            return
    if data := b"".join(pieces):
        yield Line(number + 1, batch.input_bytes, data)


def parse_line(data: bytes, endpoint: str) -> LineRequest | None:
    """Parse a line; None for an empty one. Takes time in proportion to its size, whatever it contains.

    Raises:
        InvalidLine: it is not a request for this endpoint.
    """
    try:
        data = as_utf8(data).strip()
        if not data:
            return None
        check_json(data, _NAMES)
        value = from_json(data, allow_inf_nan=False)
    except (UnreadableBody, ValueError) as error:
        raise InvalidLine("invalid_json_line", f"is not valid JSON: {error}") from None
    except (BodyTooLarge, InvalidRequest) as error:
        raise InvalidLine("invalid_request", str(error)) from None
    if not isinstance(value, dict):
        raise InvalidLine("invalid_json_line", "must be a JSON object")
    return _read(value, endpoint)


def _read(value: dict[str, Any], endpoint: str) -> LineRequest:
    for name in _NAMES:
        if name not in value:
            raise InvalidLine("missing_required_parameter", f"{name} is missing", name)
    for name in value:
        if name not in _NAMES:
            raise InvalidLine("unknown_parameter", f"{name[:80]} is not a field of a line; remove it", name[:80])
    custom_id, body = value["custom_id"], value["body"]
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= _MAX_ID:
        raise InvalidLine("invalid_custom_id", f"custom_id must be a text of 1–{_MAX_ID} characters", "custom_id")
    if value["method"] != "POST":
        raise InvalidLine("invalid_method", "method must be POST", "method")
    if value["url"] != endpoint:
        raise InvalidLine("mismatched_endpoint", f"url must be {endpoint}, the endpoint of the batch", "url")
    if not isinstance(body, dict):
        raise InvalidLine("invalid_body", "body must be an object: the request", "body")
    return LineRequest(custom_id, body)
