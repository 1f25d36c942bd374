"""A job as clients see it, in responses and webhooks, made from its record. Reads nothing; knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, Field

from contracts.auth.signed_links import LinkSigner
from contracts.catalogue.families import Task
from contracts.processes.preparations import Preparation
from contracts.queue.records import (
    DeliveryRecord,
    JobError,
    JobRecord,
    JobState,
    Position,
    Progress,
    Receipt,
    WebhookRecord,
)
from contracts.requests.schema import WebhookEvent

Entry = TypeVar("Entry")


class ListView(BaseModel, Generic[Entry]):
    """A list of objects, possibly one page of several."""

    object: Literal["list"] = "list"
    data: list[Entry]
    has_more: bool = False
    next_cursor: str | None = None


class QueueView(BaseModel):
    """A waiting job's position in its queue."""

    position: int = Field(description="1 for the job that is next")
    ahead: int


class ImageView(BaseModel):
    """One finished image."""

    url: str
    width: int
    height: int
    seed: int
    format: str
    sha256: str
    b64_json: str | None = Field(
        None,
        description="the file in base64, for response_format b64_json",
        exclude_if=lambda value: value is None,
    )


class DeliveryView(BaseModel):
    """A webhook message and the state of its delivery."""

    id: str = Field(description="sent to the receiver as `webhook-id`")
    event: WebhookEvent
    status: Literal["pending", "delivered", "given_up"]
    attempts: int
    status_code: int | None = Field(description="HTTP status of the receiver's last response")
    error: str | None = Field(description="error of the last attempt")
    updated_at: AwareDatetime


class WebhookView(BaseModel):
    """A job's webhook and its deliveries, which are left out in the webhook's own body."""

    url: str
    events: list[WebhookEvent]
    deliveries: list[DeliveryView]


class JobView(BaseModel):
    """One job."""

    id: str
    status: JobState
    task: Task
    model: str
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    expires_at: AwareDatetime | None
    progress: Progress
    queue: QueueView | None
    preparing: Preparation | None = Field(
        None,
        description="the file that the waiting job needs and that a worker prepares, perhaps after a download",
        exclude_if=lambda value: value is None,
    )
    images: list[ImageView]
    error: JobError | None
    receipt: Receipt | None
    attempts: int
    metadata: dict[str, str]
    webhook: WebhookView | None = Field(None, exclude_if=lambda value: value is None)
    links: dict[str, str] = Field(
        description="URLs: `self`, `events`, `rerun`, and `cancel` until the job has ended"
    )


@dataclass(frozen=True)
class Links:
    """Makes absolute URLs under the service's base URL (without a trailing slash); images' are signed."""

    base: str
    signer: LinkSigner

    def job(self, id: str) -> str:
        """The URL of a job."""
        return f"{self.base}/v1/jobs/{id}"

    def image(self, id: str, number: int) -> str:
        """The signed URL of an image, which needs no API key until it expires."""
        return f"{self.job(id)}/images/{number}?{self.signer.sign(id, number)}"

    def of(self, record: JobRecord) -> dict[str, str]:
        """The links of a job in its present state."""
        links = {"self": self.job(record.id), "events": f"{self.job(record.id)}/events"}
        links["rerun"] = f"{links['self']}/rerun"
        if not record.state.is_final:
            links["cancel"] = f"{links['self']}/cancel"
        return links


def view_job(
    record: JobRecord,
    links: Links,
    *,
    position: Position | None = None,
    encoded: Sequence[str | None] = (),
) -> JobView:
    """Make the view of a record.

    Args:
        position: None when the job is not waiting.
        encoded: base64 of each image, where the client asked for it and the file exists.
    """
    return JobView(
        id=record.id,
        status=record.state,
        task=record.parameters.task,
        model=record.parameters.model,
        created_at=_time(record.created_at),
        started_at=_optional_time(record.started_at),
        finished_at=_optional_time(record.finished_at),
        expires_at=_optional_time(record.expires_at),
        progress=record.progress
        if position is None
        else record.progress.model_copy(update={"eta_seconds": position.eta_seconds}),
        queue=None if position is None else QueueView(position=position.ahead + 1, ahead=position.ahead),
        preparing=record.preparing if record.state is JobState.QUEUED else None,
        images=[
            ImageView(
                url=links.image(record.id, number),
                width=image.width,
                height=image.height,
                seed=image.seed,
                format=image.format,
                sha256=image.sha256,
                b64_json=encoded[number] if encoded else None,
            )
            for number, image in enumerate(record.images)
        ],
        error=record.error,
        receipt=record.receipt,
        attempts=record.attempts,
        metadata=record.metadata,
        webhook=None if record.webhook is None else _view_webhook(record.webhook, record.deliveries),
        links=links.of(record),
    )


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
