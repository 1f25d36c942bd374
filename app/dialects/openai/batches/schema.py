"""Bodies and answers of OpenAI's files and batches. Translates nothing."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from contracts.batches.files import StoredFile
from contracts.batches.records import Batch, BatchStatus
from contracts.requests.strict_model import StrictModel

Endpoint = Literal["/v1/images/generations", "/v1/images/edits"]
Purpose = Literal["batch", "batch_output"]
FileOrder = Literal["asc", "desc"]

#: Shortest and longest time that a client may keep a file.
MIN_SECONDS, MAX_SECONDS = 3600, 30 * 86_400

_Key = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_Value = Annotated[str, StringConstraints(max_length=512)]


class ExpiresAfter(StrictModel):
    """The time for which a file is kept."""

    anchor: Literal["created_at"] = Field(description="Always `created_at`, from which the time counts.")
    seconds: int = Field(ge=MIN_SECONDS, le=MAX_SECONDS, description="Seconds until the file is deleted.")


class BatchRequest(StrictModel):
    """A batch that runs every line of a file as a request."""

    input_file_id: str = Field(max_length=100, description="Id of the file, uploaded with purpose `batch`.")
    endpoint: Endpoint = Field(description="Endpoint of all requests in the file.")
    completion_window: Literal["24h"] = Field(
        description="Time within which the batch is processed: always `24h`."
    )
    metadata: dict[_Key, _Value] | None = Field(
        None, max_length=16, description="Up to 16 keys and values of your own. Default: none."
    )
    output_expires_after: ExpiresAfter | None = Field(
        None, description="How long the results are kept. Default: as long as those of jobs."
    )


class _Answer(BaseModel):
    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class FileView(_Answer):
    """A file."""

    id: str = Field(description="Id of the file.")
    object: Literal["file"] = Field("file", description="Always `file`.")
    bytes: int = Field(description="Size in bytes.")
    created_at: int = Field(description="When it was stored, in Unix seconds.")
    expires_at: int = Field(description="When it is deleted, in Unix seconds.")
    filename: str = Field(description="Name of the file.")
    purpose: Purpose = Field(description="`batch`: requests; `batch_output`: results.")
    status: Literal["processed"] = Field("processed", description="Always `processed`.")


class FileList(_Answer):
    """A page of your files."""

    object: Literal["list"] = Field("list", description="Always `list`.")
    data: list[FileView] = Field(description="The files of this page.")
    first_id: str | None = Field(description="Id of the first of them; null without any.")
    last_id: str | None = Field(description="Id of the last one, for `after`; null without any.")
    has_more: bool = Field(description="Whether there is a next page.")


class DeletedFile(_Answer):
    """A file that was deleted."""

    id: str = Field(description="Id of the file.")
    object: Literal["file"] = Field("file", description="Always `file`.")
    deleted: Literal[True] = Field(True, description="Always true.")


class BatchError(_Answer):
    """Something wrong with the file of a batch."""

    code: str = Field(description="Stable identifier of the error, for programs.")
    message: str = Field(description="What is wrong, and what is allowed.")
    param: str | None = Field(description="Field of the line that caused it; null where no field did.")
    line: int | None = Field(description="Number of the line, counted from 1; null where it is about the file.")


class BatchErrors(_Answer):
    """The problems of a batch's file: the first 50."""

    object: Literal["list"] = Field("list", description="Always `list`.")
    data: list[BatchError] = Field(description="The problems.")


class RequestCounts(_Answer):
    """Numbers of a batch's requests."""

    total: int = Field(description="Requests in the file; 0 until it has been validated.")
    completed: int = Field(description="Those that have succeeded.")
    failed: int = Field(description="Those that have failed.")


class BatchView(_Answer):
    """A batch. Times are Unix seconds, and null until then."""

    id: str = Field(description="Id of the batch.")
    object: Literal["batch"] = Field("batch", description="Always `batch`.")
    endpoint: str = Field(description="Endpoint of its requests.")
    errors: BatchErrors | None = Field(description="Why it is `failed`; null unless it is.")
    input_file_id: str = Field(description="Id of the file of requests.")
    completion_window: str = Field(description="Always `24h`.")
    status: BatchStatus = Field(
        description="`validating`, `in_progress`, `finalizing`, `completed`; `failed` if the file is invalid; "
        "`expired` after the window; `cancelling` and `cancelled`."
    )
    output_file_id: str | None = Field(description="Id of the file of results; null until the end or without any.")
    error_file_id: str | None = Field(
        description="Id of the file of requests that failed or were not run; null until the end or without any."
    )
    created_at: int = Field(description="When it was created.")
    in_progress_at: int | None = Field(description="When its file was validated.")
    expires_at: int = Field(description="When it ends, whether all requests have been run or not.")
    finalizing_at: int | None = Field(description="When the last request had ended.")
    completed_at: int | None = Field(description="When it was completed.")
    failed_at: int | None = Field(description="When it failed.")
    expired_at: int | None = Field(description="When it expired.")
    cancelling_at: int | None = Field(description="When its cancellation was requested.")
    cancelled_at: int | None = Field(description="When it was cancelled.")
    request_counts: RequestCounts = Field(description="Counts of its requests.")
    metadata: dict[str, str] | None = Field(description="Keys and values of your own; null without any.")


class BatchList(_Answer):
    """A page of your batches, newest first."""

    object: Literal["list"] = Field("list", description="Always `list`.")
    data: list[BatchView] = Field(description="The batches of this page.")
    first_id: str | None = Field(description="Id of the first of them; null without any.")
    last_id: str | None = Field(description="Id of the last one, for `after`; null without any.")
    has_more: bool = Field(description="Whether there is a next page.")


def view_file(file: StoredFile) -> FileView:
    """Describe a file."""
    return FileView(
        id=file.id,
        bytes=file.size_bytes,
        created_at=int(file.created_at),
        expires_at=int(file.expires_at),
        filename=file.filename,
        purpose=file.purpose,
    )


_TIMES = (
    "created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at", "expired_at",
    "cancelling_at", "cancelled_at",
)  # fmt: skip


def view_batch(batch: Batch) -> BatchView:
    """Describe a batch."""
    times: dict[str, Any] = {name: getattr(batch, name) for name in _TIMES}
    errors = [BatchError.model_validate(error.model_dump()) for error in batch.errors]
    return BatchView(
        id=batch.id,
        endpoint=batch.endpoint,
        errors=BatchErrors(data=errors) if errors else None,
        input_file_id=batch.input_file_id,
        completion_window=batch.completion_window,
        status=batch.status,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        request_counts=RequestCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
        metadata=batch.metadata or None,
        **{name: None if value is None else int(value) for name, value in times.items()},
    )
