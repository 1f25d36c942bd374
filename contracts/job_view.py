"""A job as clients see it, made of its record, in answers and webhooks. Reads nothing itself; knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, Field

from contracts.auth.signed_links import LinkSigner
from contracts.catalogue.families import Task
from contracts.queue.records import DeliveryRecord, JobError, JobRecord, JobState, Progress, Receipt, WebhookRecord
from contracts.requests.schema import WebhookEvent

Entry = TypeVar("Entry")


class ListView(BaseModel, Generic[Entry]):
    """Every list of the service."""

    object: Literal["list"] = "list"
    data: list[Entry]
    has_more: bool = False
    next_cursor: str | None = None


class QueueView(BaseModel):
    """A waiting job's place in its own queue."""

    position: int = Field(description="1 is the next")
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
        description="the bytes, where the job asked for response_format b64_json",
        exclude_if=lambda value: value is None,
    )


class DeliveryView(BaseModel):
    """One message of a webhook."""

    id: str = Field(description="the `webhook-id` that the receiver sees")
    event: WebhookEvent
    status: Literal["pending", "delivered", "given_up"]
    attempts: int
    status_code: int | None = Field(description="of the receiver's last answer")
    error: str | None = Field(description="of the last attempt")
    updated_at: AwareDatetime


class WebhookView(BaseModel):
    """Where news of a job goes, and how far it is; in a webhook's own body without `deliveries`."""

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
    images: list[ImageView]
    error: JobError | None
    receipt: Receipt | None
    attempts: int
    metadata: dict[str, str]
    webhook: WebhookView | None = Field(None, exclude_if=lambda value: value is None)
    links: dict[str, str] = Field(description="`self`, `events`, `rerun`, and `cancel` until the job has ended")


@dataclass(frozen=True)
class Links:
    """Absolute addresses under the service's base URL, which ends without a slash; those of images are signed."""

    base: str
    signer: LinkSigner

    def job(self, id: str) -> str:
        """Where the job is."""
        return f"{self.base}/v1/jobs/{id}"

    def image(self, id: str, number: int) -> str:
        """Where one of its images is, for whoever has the link, for a while."""
        return f"{self.job(id)}/images/{number}?{self.signer.sign(id, number)}"

    def of(self, record: JobRecord) -> dict[str, str]:
        """What can be done with a job now."""
        links = {"self": self.job(record.id), "events": f"{self.job(record.id)}/events"}
        links["rerun"] = f"{links['self']}/rerun"
        if not record.state.is_final:
            links["cancel"] = f"{links['self']}/cancel"
        return links


@dataclass(frozen=True)
class Place:
    """A waiting job's place: jobs before it in its queue, and seconds to its end, where that is known."""

    ahead: int
    eta_seconds: float | None = None


def view_job(
    record: JobRecord, links: Links, *, place: Place | None = None, encoded: Sequence[str | None] = ()
) -> JobView:
    """A record as clients see it.

    Args:
        place: where it waits, if it does.
        encoded: base64 of each image, where the client asked for it and the bytes are there.
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
        if place is None
        else record.progress.model_copy(update={"eta_seconds": place.eta_seconds}),
        queue=None if place is None else QueueView(position=place.ahead + 1, ahead=place.ahead),
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
        DeliveryView(id=id, **one.model_dump(exclude={"updated_at"}), updated_at=_time(one.updated_at))
        for id, one in sorted(deliveries.items())
    ]
    return WebhookView(url=webhook.url, events=list(webhook.events), deliveries=shown)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _optional_time(seconds: float | None) -> datetime | None:
    return None if seconds is None else _time(seconds)
