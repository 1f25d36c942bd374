"""Lines of a batch's results: written to files one by one, so that no more than one is in memory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from app.dialects.openai.responses import ImagesAnswer, answer_failure
from app.errors import Failure
from contracts.batches.records import Batch, BatchStatus

#: Kinds of results, each of which is a file in the end.
OUTPUT, ERROR = "output", "error"
#: How much of a file is copied at a time.
_CHUNK_BYTES = 2**20

_UNRUN = {
    BatchStatus.EXPIRED: ("batch_expired", "The batch's completion window ended before the request was run."),
    BatchStatus.CANCELLED: ("batch_cancelled", "The batch was cancelled before the request was run."),
}


class ResultFiles:
    """The files of a batch's results in a folder of this machine."""

    def __init__(self, batch: Batch, folder: Path) -> None:
        self._batch = batch
        self._folder = folder

    def paths(self) -> dict[str, Path]:
        """The files by the kinds of results that there are."""
        return {kind: path for kind in (OUTPUT, ERROR) if (path := self._folder / kind).exists()}

    def add_answer(self, number: int, custom_id: str, answer: ImagesAnswer) -> None:
        """Add the answer to a request."""
        body = answer.model_dump(mode="json")
        self._add(OUTPUT, number, custom_id, {"status_code": 200, "body": body}, None)

    def add_failure(self, number: int, custom_id: str, failure: Failure) -> None:
        """Add the error with which a request was refused, or its job has ended."""
        body = answer_failure(failure).model_dump(mode="json")
        self._add(ERROR, number, custom_id, {"status_code": failure.row.status, "body": body}, None)

    def add_unrun(self, number: int, custom_id: str, ending: BatchStatus) -> None:
        """Add a request that was not run before the batch's end."""
        code, message = _UNRUN[ending]
        self._add(ERROR, number, custom_id, None, {"code": code, "message": message})

    def append_file(self, kind: str, source: Path) -> None:
        """Add lines that were written before."""
        with source.open("rb") as stream, (self._folder / kind).open("ab") as file:
            shutil.copyfileobj(stream, file, _CHUNK_BYTES)

    def _add(
        self, kind: str, number: int, custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None
    ) -> None:
        id = request_id(self._batch.id, number)
        if response is not None:
            response = {"status_code": response["status_code"], "request_id": id, "body": response["body"]}
        line = {"id": id, "custom_id": custom_id, "response": response, "error": error}
        with (self._folder / kind).open("ab") as file:
            file.write(to_json(line) + b"\n")


def request_id(batch: str, number: int) -> str:
    """The id of the request in a line of a batch, in results and in logs."""
    return f"batch_req_{batch.removeprefix('batch_')}_{number}"
