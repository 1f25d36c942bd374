"""A job as clients see it, in responses and webhooks, made from its record. Reads nothing; knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field

from contracts.jobs.image_safety import ImageSafety
from contracts.jobs.preparations import Preparation
from contracts.jobs.receipt import Receipt
from contracts.jobs.records import (
    DeliveryRecord,
    JobError,
    JobRecord,
    JobState,
    Position,
    Progress,
    WebhookRecord,
)
from contracts.left_out_fields import OrLeftOut
from contracts.prompts.tokens import TokenUse
from contracts.requests.schema import WebhookEvent
from contracts.requests.task_parameters import JobTask
from contracts.views.links import Links
from contracts.views.lists import ListView


class QueueView(BaseModel):
    """Position of a waiting job in its queue."""

    position: int = Field(description="Position among the waiting jobs; 1 for the job that is next.")
    ahead: int = Field(
        description="Number of waiting jobs that are served before this one, of all models, priorities and owners."
    )


class ImageView(BaseModel):
    """One finished image."""

    url: str = Field(description="URL of the file; it is signed, and needs no API key until it expires.")
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")
    seed: int | None = Field(description="Seed of this image; null for one that is not made from noise.")
    layer: OrLeftOut[int] = Field(
        None,
        description="Layer that the file has of an image in `layers`, from 0, the backmost; left out for others.",
    )
    format: str = Field(description="File format: `png`, `jpeg` or `webp`.")
    sha256: str = Field(description="SHA-256 of the file, in hexadecimal.")
    safety: OrLeftOut[ImageSafety] = Field(
        None, description="What the safety check found; left out where images are not checked."
    )
    b64_json: OrLeftOut[str] = Field(
        None, description="The file in base64; left out unless the request had `response_format: b64_json`."
    )


class DeliveryView(BaseModel):
    """A webhook message and the state of its delivery."""

    id: str = Field(description="Id of the message, sent to the receiver as `webhook-id`.")
    event: WebhookEvent = Field(description="Event that the message is about.")
    status: Literal["pending", "delivered", "given_up"] = Field(
        description="`pending` until the receiver has accepted it; `given_up` after the last attempt failed."
    )
    attempts: int = Field(description="Number of attempts so far.")
    status_code: int | None = Field(
        description="HTTP status of the receiver's last response; null where there was no response."
    )
    error: str | None = Field(description="Error of the last attempt; null where there was none.")
    updated_at: AwareDatetime = Field(description="Time of the last change.")


class WebhookView(BaseModel):
    """A job's webhook and its deliveries, which are left out in the webhook's own body."""

    url: str = Field(description="Address that events are posted to.")
    events: list[WebhookEvent] = Field(description="Events that are posted.")
    deliveries: list[DeliveryView] = Field(
        description="The messages so far, and the state of their delivery; empty in the body of a webhook."
    )


class JobView(BaseModel):
    """One job."""

    id: str = Field(description="Id of the job.")
    status: JobState = Field(
        description="State: `queued`, `running`, and finally `completed`, `failed` or `cancelled`. A job "
        "that will be retried is `queued`, with `attempts` above 0."
    )
    task: JobTask = Field(description="Task of the request.")
    model: str = Field(description="Id of the model.")
    created_at: AwareDatetime = Field(description="When the job was accepted.")
    started_at: AwareDatetime | None = Field(description="When its last attempt began; null before the first one.")
    finished_at: AwareDatetime | None = Field(description="When it ended; null until then.")
    expires_at: AwareDatetime | None = Field(
        description="When the job and its images are deleted; null until it has ended."
    )
    progress: Progress = Field(description="Progress of the job.")
    queue: QueueView | None = Field(description="Position in the queue; null unless the job waits, and in lists.")
    preparing: OrLeftOut[Preparation] = Field(
        None,
        description="The file that the waiting job needs and that a worker is preparing, downloading it "
        "if necessary; left out if it waits for none.",
    )
    checkpoint_step: OrLeftOut[int] = Field(
        None,
        description="For a training: step of its newest checkpoint, from which it resumes after an "
        "interruption, and from which a training with its id in `resume_from` starts; left "
        "out without a checkpoint.",
    )
    images: list[ImageView] = Field(description="The finished images; empty until the job is `completed`.")
    error: JobError | None = Field(description="Why the job failed; null unless it is `failed`.")
    receipt: Receipt | None = Field(
        description="How the images were made, and from what; null until the job is `completed`."
    )
    attempts: int = Field(description="Number of attempts that have started; above 1 if a worker was lost.")
    metadata: dict[str, str] = Field(description="`metadata` of the request.")
    trace_id: OrLeftOut[str] = Field(
        None,
        description="Trace that the job belongs to (W3C Trace Context): the one in the request's "
        "`traceparent`, or one that the service started; left out without one.",
    )
    webhook: OrLeftOut[WebhookView] = Field(None, description="The job's webhook; left out where it has none.")
    prompt_tokens: dict[str, TokenUse] | None = Field(
        None,
        description="Text encoder -> tokens of the prompt, and how many of them it reads; where the model's "
        "tokenizers are not on the API's machine, null until the job has run.",
    )
    negative_prompt_tokens: dict[str, TokenUse] | None = Field(
        None, description="The same for the negative prompt; null without one."
    )
    links: dict[str, str] = Field(
        description="URLs: `self`, `events`, `rerun`, `latents` where the job has kept any, `cancel` until it has "
        "ended, and `released/N` for each flagged image N that the operator has released."
    )


class ListedJob(JobView):
    """A job in a list: without its receipt, which is several times as long as the rest, unless it is asked for."""

    receipt: OrLeftOut[Receipt] = Field(
        None, description="How the images were made: only with `include=receipt`, once the job has completed."
    )

    @classmethod
    def of(cls, view: JobView, *, with_receipt: bool) -> ListedJob:
        """The entry for a job."""
        return cls.model_construct(**{**dict(view), "receipt": view.receipt if with_receipt else None})


class JobList(ListView[ListedJob]):
    """A page of the caller's jobs, newest first."""


def view_job(
    record: JobRecord,
    links: Links,
    *,
    position: Position | None = None,
    encoded: Sequence[str | None] = (),
) -> JobView:
    """Make the view of a record.

    Args:
        position: None when the job has ended, or where it is not known.
        encoded: base64 of each image, where the client asked for it and the file exists.
    """
    return JobView(
        id=record.id,
        status=record.state,
        task=JobTask(record.parameters.task),
        model=record.parameters.model,
        created_at=_time(record.created_at),
        started_at=_optional_time(record.started_at),
        finished_at=_optional_time(record.finished_at),
        expires_at=_optional_time(record.expires_at),
        progress=_progress(record, position),
        queue=None
        if position is None or position.ahead is None
        else QueueView(position=position.ahead + 1, ahead=position.ahead),
        preparing=record.preparing if record.state is JobState.QUEUED else None,
        checkpoint_step=None if record.checkpoint is None else record.checkpoint.progress.step,
        prompt_tokens=_read_tokens(record, "prompt_tokens"),
        negative_prompt_tokens=_read_tokens(record, "negative_prompt_tokens"),
        images=[
            ImageView(
                url=links.image(record.id, number),
                width=image.width,
                height=image.height,
                seed=image.seed,
                layer=image.layer,
                format=image.format,
                sha256=image.sha256,
                safety=image.safety,
                b64_json=encoded[number] if encoded else None,
            )
            for number, image in enumerate(record.images)
        ],
        error=record.error,
        receipt=record.receipt,
        attempts=record.attempts,
        metadata=record.metadata,
        trace_id=None if record.trace_context is None else record.trace_context.trace_id,
        webhook=None if record.webhook is None else _view_webhook(record.webhook, record.deliveries),
        links=links.of(record),
    )


def _progress(record: JobRecord, position: Position | None) -> Progress:
    """The progress, with what is expected now of a job that waits or runs."""
    return record.progress.model_copy(update=view_estimate(position))


def view_estimate(position: Position | None) -> dict[str, object]:
    """What progress says of a job's end; other estimates, which older workers wrote into records, do not count."""
    if position is None or position.eta_seconds is None:
        reason = {"eta_reason": position.reason} if position is not None and position.reason else {}
        return {"eta_seconds": None, "eta_range_seconds": None, **reason}
    eta_range = [position.low_seconds, position.high_seconds]
    return {"eta_seconds": position.eta_seconds, "eta_range_seconds": eta_range}


def _read_tokens(record: JobRecord, name: str) -> dict[str, TokenUse] | None:
    """What the encoders read, by the receipt; before that, as it was counted when the job was accepted."""
    read: dict[str, TokenUse] | None = None if record.receipt is None else getattr(record.receipt, name)
    counted: dict[str, TokenUse] | None = getattr(record, name)
    return read or counted


def _view_webhook(webhook: WebhookRecord, deliveries: Mapping[str, DeliveryRecord]) -> WebhookView:
    shown = [
        DeliveryView(id=id, **one.model_dump(exclude={"updated_at", "sequence"}), updated_at=_time(one.updated_at))
        for id, one in sorted(deliveries.items())
    ]
    return WebhookView(url=webhook.url, events=list(webhook.events), deliveries=shown)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _optional_time(seconds: float | None) -> datetime | None:
    return None if seconds is None else _time(seconds)
