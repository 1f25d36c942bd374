"""A job's event stream: a Redis stream that can be read from any event on. Knows no HTTP.

The scripts in `contracts/redis/scripts/` append to it in the same step as the change that an event reports.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, ConfigDict
from redis import Redis

from contracts.redis import keys

#: Among so many of the last events a preview is looked for; between two of them each step has one.
_LATEST_EVENTS = 250


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job.

    Attributes:
        id: position in the stream; grows.
        kind: queued, preparing, started, progress, preview, completed, failed or cancelled.
        data: JSON object.
    """

    id: str
    kind: str
    data: dict[str, Any]


class Preview(BaseModel):
    """Data of a `preview` event: one of the job's images as it looks after a step.

    Attributes:
        index: which of the job's images, from 0.
        url: `data:` URL of a small JPEG, `width` × `height` pixels.
    """

    model_config = ConfigDict(frozen=True)

    index: int
    step: int
    steps: int
    width: int
    height: int
    url: str


def stream_key(job_id: str) -> str:
    """The stream's Redis key."""
    return keys.EVENTS + job_id


def read_events(connection: Redis, job_id: str, after: str = "0", limit: int = 256) -> list[Event]:
    """Events after an id, oldest first; `connection` decodes responses."""
    entries = cast(
        "list[tuple[str, dict[str, str]]]",
        connection.xrange(stream_key(job_id), min=f"({after}" if after != "0" else "-", count=limit),
    )
    return [Event(id, fields["event"], json.loads(fields["data"])) for id, fields in entries]


def latest_preview(connection: Redis, job_id: str) -> Preview | None:
    """The preview that came last, of whichever image; None where there is none yet."""
    entries = cast(
        "list[tuple[str, dict[str, str]]]", connection.xrevrange(stream_key(job_id), count=_LATEST_EVENTS)
    )
    return next(
        (Preview.model_validate_json(fields["data"]) for _, fields in entries if fields["event"] == "preview"),
        None,
    )
