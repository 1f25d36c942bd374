"""A job as Replicate's clients see it, a prediction, made from its record. Reads nothing; knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field
from tqdm import tqdm

from contracts.jobs.records import JobRecord, JobState
from contracts.left_out_fields import OrLeftOut
from contracts.views.links import Links

PREDICTIONS_PATH = "/replicate/v1/predictions"
#: Replicate's models have an owner and a name; all of ours have this owner.
MODEL_OWNER = "darkroom"

PredictionStatus = Literal["starting", "processing", "succeeded", "failed", "canceled"]
_STATUS: Mapping[JobState, PredictionStatus] = {
    JobState.QUEUED: "starting",
    JobState.RUNNING: "processing",
    JobState.COMPLETED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "canceled",
}
#: Parameters that no request has, and storage keys in place of images.
_NOT_INPUT = frozenset(
    {"task", "mode", "model", "input_images", "prompt_chunks", "image", "mask_image", "references", "controls"}
)


class PredictionMetrics(BaseModel):
    """The durations of a prediction."""

    predict_time: OrLeftOut[float] = Field(None, description="Seconds in which it ran; left out until it ended.")
    total_time: OrLeftOut[float] = Field(
        None, description="Seconds from its creation to its end; left out until it ended."
    )


class PredictionView(BaseModel):
    """One prediction: a job in Replicate's words."""

    id: str = Field(description="Id of the prediction, and of its job in the native API.")
    model: str = Field(description="Model as `OWNER/NAME`; the owner is always `darkroom`.")
    version: str = Field(description="Version of the model: a hash of its row in the catalogue.")
    status: PredictionStatus = Field(
        description="`starting`, `processing`, and finally `succeeded`, `failed` or `canceled`."
    )
    input: dict[str, Any] = Field(description="The input with defaults filled in, without its images.")
    output: list[str] | None = Field(
        description="The images: signed URLs, or `data:` URLs with `response_format: b64_json`; null until it has "
        "succeeded."
    )
    error: str | None = Field(description="Why it failed; null unless it did.")
    logs: str = Field(description="The first seed, and the progress as tqdm writes it.")
    metrics: PredictionMetrics = Field(description="How long it took.")
    created_at: AwareDatetime = Field(description="When it was accepted.")
    started_at: AwareDatetime | None = Field(description="When its last attempt began; null before the first one.")
    completed_at: AwareDatetime | None = Field(description="When it ended; null until then.")
    source: Literal["api"] = Field("api", description="Always `api`.")
    data_removed: Literal[False] = Field(False, description="Always false: removed predictions are not found.")
    urls: dict[str, str] = Field(description="URLs: `get`, `cancel`, and `stream`, which is signed.")


def view_prediction(
    record: JobRecord, version: str, links: Links, *, encoded: Sequence[str | None] = ()
) -> PredictionView:
    """Make the view of a record.

    Args:
        encoded: base64 of each image, where the client asked for it and the file exists.
    """
    url, signature = f"{links.base}{PREDICTIONS_PATH}/{record.id}", links.signer.sign_events(record.id)
    return PredictionView(
        id=record.id,
        model=f"{MODEL_OWNER}/{record.parameters.model}",
        version=version,
        status=_STATUS[record.state],
        input=_input_of(record),
        output=output_of(record, links, encoded) if record.state is JobState.COMPLETED else None,
        error=None if record.error is None else f"{record.error.code}: {record.error.message}",
        logs="".join(logs_of(record)),
        metrics=_metrics_of(record),
        created_at=_time(record.created_at),
        started_at=None if record.started_at is None else _time(record.started_at),
        completed_at=None if record.finished_at is None else _time(record.finished_at),
        urls={
            "get": url,
            "cancel": f"{url}/cancel",
            "stream": f"{url}/stream?{signature}",
        },
    )


def output_of(record: JobRecord, links: Links, encoded: Sequence[str | None] = ()) -> list[str]:
    """The images of a completed job: `data:` URLs where they are encoded, else signed URLs."""
    return [
        f"data:image/{image.format};base64,{encoded[number]}"
        if encoded and encoded[number] is not None
        else links.image(record.id, number)
        for number, image in enumerate(record.images)
    ]


def logs_of(record: JobRecord) -> list[str]:
    """The log so far: the seed, and the latest progress, each a line."""
    lines = [f"Using seed: {seed}\n" for seed in record.parameters.seeds[:1] if seed is not None]
    progress = record.progress
    if record.started_at is not None and progress.steps:
        ended_at = record.finished_at or record.started_at
        lines.append(progress_line(progress.step, progress.steps, ended_at - record.started_at))
    return lines


def progress_line(step: int, steps: int, elapsed_seconds: float = 0.0) -> str:
    """Progress as tqdm writes it, from which clients read it."""
    return f"{tqdm.format_meter(step, steps, max(0.0, elapsed_seconds))}\n"


def _input_of(record: JobRecord) -> dict[str, Any]:
    return record.parameters.model_dump(mode="json", exclude=set(_NOT_INPUT), exclude_none=True)


def _metrics_of(record: JobRecord) -> PredictionMetrics:
    if record.finished_at is None:
        return PredictionMetrics()
    started = record.started_at
    return PredictionMetrics(
        predict_time=None if started is None else max(0.0, record.finished_at - started),
        total_time=max(0.0, record.finished_at - record.created_at),
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
