"""The requests that clients send, one class a task, and their fields about delivery.

Types and ranges only: what a family, a model or two fields together allow is checked in `validation.py`. The
fields that shape the image are in `fields.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, get_args

from pydantic import Field, field_validator

from contracts.catalogue.families import Task
from contracts.requests.entries import Control
from contracts.requests.fields import ControlImage, ImageFields, OptionalImages
from contracts.requests.images.image_fields import (
    DEFAULT_MASK_BLUR,
    DEFAULT_STRENGTH,
    FitField,
    ImageRef,
    MaskBlur,
    MaskCrop,
    MaskRef,
    References,
    Strength,
)
from contracts.requests.strict_model import StrictModel

_MAX_METADATA_BYTES = 2048


class Priority(StrEnum):
    """Priority of a job; jobs of a higher one are always served first. That of trainings is nobody's choice."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
    TRAINING = "training"


#: Priorities that clients and operators choose, the highest first.
ChosenPriority = Literal[Priority.HIGH, Priority.NORMAL, Priority.LOW]
CHOSEN_PRIORITIES: tuple[Priority, ...] = get_args(ChosenPriority)


class WebhookEvent(StrEnum):
    """Job event that a webhook may subscribe to; also the name of an event in the job's stream."""

    QUEUED = "queued"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Webhook(StrictModel):
    """Address that receives a job's events."""

    url: str = Field(
        min_length=1,
        max_length=2048,
        description="`https:` address that each event is posted to.",
    )
    events: tuple[WebhookEvent, ...] = Field(
        (WebhookEvent.COMPLETED, WebhookEvent.FAILED, WebhookEvent.CANCELLED),
        min_length=1,
        max_length=5,
        description="Events that are posted. Default: those that end the job.",
    )


class DeliveryFields(StrictModel):
    """Fields of every request that becomes a job, whatever its task runs: how it is queued and answered."""

    response_format: Literal["url", "b64_json"] = Field(
        "url",
        description="How finished images are returned; `b64_json` adds the files in base64 to the job, beside "
        "their URLs.",
    )
    priority: ChosenPriority = Field(
        Priority.NORMAL, description="Priority among waiting jobs; an API key may have a highest one."
    )
    deadline_seconds: int | None = Field(
        None,
        ge=1,
        le=86_400,
        description="Seconds after which the job fails with `deadline_exceeded` if it has not finished. "
        "Default: no deadline.",
    )
    cancel_on_disconnect: bool | None = Field(
        None,
        description="Cancel the job if the client that waits for it (`Prefer: wait`, `stream`, event stream) "
        "disconnects and no client waits for the job again, or reads it, within ten seconds. "
        "Default: true on routes of other services' APIs that answer with images, without an `Idempotency-Key`; "
        "else false.",
    )
    webhook: Webhook | None = Field(None, description="Where events of the job are posted. Default: nowhere.")
    metadata: dict[str, str] = Field(
        default_factory=dict,
        max_length=16,
        description=f"Names and values of your own, at most {_MAX_METADATA_BYTES} bytes together. They are "
        "returned with the job, and `GET /v1/jobs` filters by them. Default: empty.",
    )

    @field_validator("metadata")
    @classmethod
    def _metadata_is_small(cls, metadata: dict[str, str]) -> dict[str, str]:
        size = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
        if size > _MAX_METADATA_BYTES:
            raise ValueError(f"keys and values may have at most {_MAX_METADATA_BYTES} bytes together, got {size}")
        return metadata


class JobRequest(DeliveryFields, ImageFields):
    """Fields of every task of diffusion models."""


class Txt2ImgRequest(JobRequest, ControlImage):
    """An image from a prompt."""

    task: Literal[Task.TXT2IMG] = Field(Task.TXT2IMG, description="Selects this kind of request.")


class Img2ImgRequest(JobRequest, ControlImage):
    """An image from a prompt and an image."""

    task: Literal[Task.IMG2IMG] = Field(Task.IMG2IMG, description="Selects this kind of request.")
    image: ImageRef
    strength: Strength = DEFAULT_STRENGTH
    fit: FitField | None = None


class InpaintRequest(JobRequest, ControlImage):
    """An image whose masked part is regenerated: white in `mask_image` is regenerated, black is kept."""

    task: Literal[Task.INPAINT] = Field(Task.INPAINT, description="Selects this kind of request.")
    image: ImageRef
    mask_image: MaskRef
    strength: Strength = DEFAULT_STRENGTH
    mask_blur: MaskBlur = DEFAULT_MASK_BLUR
    padding_mask_crop: MaskCrop | None = None
    fit: FitField | None = None


class ControlNetRequest(JobRequest, OptionalImages):
    """An image guided by ControlNets; it may start from `image`, and regenerate what `mask_image` selects."""

    task: Literal[Task.CONTROLNET] = Field(Task.CONTROLNET, description="Selects this kind of request.")
    controls: tuple[Control, ...] = Field(min_length=1, max_length=4, description="ControlNets to apply.")


class ReferenceEditRequest(JobRequest, OptionalImages):
    """An image from a prompt and reference images; with `image` and `mask_image`, only the mask's white of it."""

    task: Literal[Task.EDIT] = Field(Task.EDIT, description="Selects this kind of request.")
    references: References


REQUESTS: dict[Task, type[JobRequest]] = {
    Task.TXT2IMG: Txt2ImgRequest,
    Task.IMG2IMG: Img2ImgRequest,
    Task.INPAINT: InpaintRequest,
    Task.CONTROLNET: ControlNetRequest,
    Task.EDIT: ReferenceEditRequest,
}
