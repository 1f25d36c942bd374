"""The requests that clients send: one class per task, one discriminated union.

Shapes and ranges only. What a family, a model or two fields together allow is `validation.py`'s matter.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from contracts.catalogue.families import Task

MAX_SEED = 2**32 - 1

Text = Annotated[str, Field(min_length=1, max_length=10_000)]
Side = Annotated[int, Field(ge=64, le=2048)]
Pair = tuple[Annotated[int, Field(ge=0, le=8192)], Annotated[int, Field(ge=0, le=8192)]]
#: `upload:…`, `job:ID/N`, a `data:` URL, bare base64, or an `https:` URL where the operator allows it.
#: The API replaces it by a storage key.
ImageRef = Annotated[str, Field(min_length=1)]


class Priority(StrEnum):
    """Tiers of the queue; a higher one is always served first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


#: `exact`: every step is computed. `fast`: some are predicted from those before, which changes the image.
Speed = Literal["exact", "fast"]


class Part(BaseModel):
    """Base of everything in a request body: unknown fields are refused, numbers are numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(Part):
    """One adapter and its weight."""

    name: str
    scale: float = Field(1.0, ge=-4, le=4)


class Control(Part):
    """One ControlNet with its picture. `image` is left out only for a ControlNet of kind `inpaint`."""

    controlnet: str
    image: ImageRef | None = None
    preprocess: str | None = None
    conditioning_scale: float = Field(1.0, ge=0, le=2)
    guidance_start: float = Field(0.0, ge=0, le=1)
    guidance_end: float = Field(1.0, ge=0, le=1)


class WebhookEvent(StrEnum):
    """News of a job that a webhook may ask for; names of its event stream."""

    QUEUED = "queued"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Webhook(Part):
    """Where news of a job is sent; without `events`, of its end alone."""

    url: str = Field(min_length=1, max_length=2048)
    events: tuple[WebhookEvent, ...] = Field(
        (WebhookEvent.COMPLETED, WebhookEvent.FAILED, WebhookEvent.CANCELLED), min_length=1, max_length=5
    )


class JobRequest(Part):
    """Fields of every task. None means: the model's own."""

    model: str | None = None
    prompt: Text
    prompt_2: Text | None = None
    prompt_3: Text | None = None
    negative_prompt: Annotated[str, Field(max_length=10_000)] | None = None
    width: Side | None = None
    height: Side | None = None
    num_images: int = Field(1, ge=1, le=8)
    num_inference_steps: int | None = Field(None, ge=1, le=200)
    guidance_scale: float | None = Field(None, ge=0, le=30)
    true_cfg_scale: float | None = Field(None, ge=0, le=30)
    guidance_rescale: float | None = Field(None, ge=0, le=1)
    clip_skip: int | None = Field(None, ge=1, le=8)
    max_sequence_length: int | None = Field(None, ge=1, le=512)
    original_size: Pair | None = None
    crops_coords_top_left: Pair | None = None
    target_size: Pair | None = None
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    batchable: bool | None = None
    scheduler: str | None = None
    speed: Speed = "exact"
    loras: tuple[Lora, ...] = Field((), max_length=8)
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_quality: int = Field(95, ge=1, le=100)
    response_format: Literal["url", "b64_json"] = "url"
    previews: int = Field(0, ge=0, le=10)
    priority: Priority = Priority.NORMAL
    deadline_seconds: int | None = Field(None, ge=1, le=86_400)
    webhook: Webhook | None = None
    metadata: dict[str, str] = Field(default_factory=dict, max_length=16)

    @field_validator("metadata")
    @classmethod
    def _metadata_is_small(cls, metadata: dict[str, str]) -> dict[str, str]:
        if sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items()) > 2048:
            raise ValueError("all keys and values together may have 2048 bytes")
        return metadata


class Txt2ImgRequest(JobRequest):
    """An image from a prompt."""

    task: Literal[Task.TXT2IMG] = Task.TXT2IMG


class Img2ImgRequest(JobRequest):
    """An image from a prompt and an image; `strength` 1 forgets the image, 0 would keep it."""

    task: Literal[Task.IMG2IMG] = Task.IMG2IMG
    image: ImageRef
    strength: float = Field(0.6, gt=0, le=1)


class InpaintRequest(JobRequest):
    """An image of which the white part of a mask is painted anew."""

    task: Literal[Task.INPAINT] = Task.INPAINT
    image: ImageRef
    mask_image: ImageRef
    strength: float = Field(0.6, gt=0, le=1)
    mask_blur: int = Field(0, ge=0, le=64)
    padding_mask_crop: int | None = Field(None, ge=0, le=512)


class ControlNetRequest(JobRequest):
    """An image guided by ControlNets; with `image` it starts from one, with `mask_image` it repaints a part."""

    task: Literal[Task.CONTROLNET] = Task.CONTROLNET
    controls: tuple[Control, ...] = Field(min_length=1, max_length=4)
    image: ImageRef | None = None
    mask_image: ImageRef | None = None
    strength: float | None = Field(None, gt=0, le=1)
    mask_blur: int | None = Field(None, ge=0, le=64)
    padding_mask_crop: int | None = Field(None, ge=0, le=512)


REQUESTS: dict[Task, type[JobRequest]] = {
    Task.TXT2IMG: Txt2ImgRequest,
    Task.IMG2IMG: Img2ImgRequest,
    Task.INPAINT: InpaintRequest,
    Task.CONTROLNET: ControlNetRequest,
}
