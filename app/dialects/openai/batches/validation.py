"""What is wrong with the file of a batch, before any of its lines is run. Does not read the requests in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from app.dialects.openai.batches.lines import InvalidLine, parse_line, read_lines
from contracts.batches.records import Batch, LineError
from contracts.errors import MAX_PROBLEMS
from contracts.storage import Storage


@dataclass(frozen=True)
class FileLimits:
    """Bounds of a batch's file: bytes of a line, and lines, empty ones included."""

    max_line_bytes: int
    max_lines: int


def validate_file(
    storage: Storage, batch: Batch, limits: FileLimits, going_on: Callable[[], None]
) -> tuple[int, list[LineError]]:
    """Count the requests of a batch's file, and find what is wrong with it, up to `MAX_PROBLEMS`.

    Args:
        going_on: called for each line; what it raises ends the validation.

    Raises:
        NotFound: the file is gone.
        Unavailable: the storage does not answer.
    """
    errors: list[LineError] = []
    ids: set[bytes] = set()  # hashes, which are short whatever the ids are
    for line in read_lines(storage, batch, limits.max_line_bytes):
        going_on()
        try:
            if line.number > limits.max_lines:
                raise InvalidLine("too_many_lines", f"a file may have at most {limits.max_lines} lines; split it")
            if line.data is None:
                raise InvalidLine(
                    "line_too_long", f"a line may have at most {limits.max_line_bytes} bytes; is it JSON Lines?"
                )
            request = parse_line(line.data, batch.endpoint)
            if request is None:
                continue
            digest = hashlib.blake2b(request.custom_id.encode(), digest_size=16).digest()
            if digest in ids:
                raise InvalidLine(
                    "duplicate_custom_id",
                    f"custom_id {request.custom_id[:80]!r} is already used by an earlier line; it must be unique",
                    "custom_id",
                )
            ids.add(digest)
        except InvalidLine as error:
            errors.append(error.at(line.number))
            if len(errors) == MAX_PROBLEMS or line.number > limits.max_lines:
                break
    if not ids and not errors:
        errors.append(LineError(code="empty_file", message="the file has no requests"))
    return len(ids), errors
