"""Pictures that clients sent ahead: a Redis string `darkroom:upload:<owner>:<sha256>`
that ends with its time.

Knows what is remembered of an upload; neither HTTP nor how pictures are decoded.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict

from app.pictures import Picture
from contracts.queue import JobQueue, redis_errors_are_unavailable

_ID = re.compile(r"upload:([0-9a-f]{64})")


class Upload(BaseModel):
    """One upload, as clients see it and as it is remembered."""

    model_config = ConfigDict(frozen=True)

    id: str
    sha256: str
    width: int
    height: int
    format: str
    expires_at: AwareDatetime


def remember(queue: JobQueue, owner: str, picture: Picture, ttl_seconds: int) -> tuple[Upload, bool]:
    """Make a stored picture's id valid for its owner, for `ttl_seconds` from now on.

    Returns:
        The upload, and whether it is new.
    """
    with redis_errors_are_unavailable():
        upload = Upload(
            id=f"upload:{picture.sha256}",
            sha256=picture.sha256,
            width=picture.width,
            height=picture.height,
            format=picture.format,
            expires_at=datetime.fromtimestamp(queue.now() + ttl_seconds, UTC),
        )
        text = upload.model_dump_json()
        known = queue.connection.set(_key(owner, picture.sha256), text, ex=ttl_seconds, get=True)
    return upload, known is None


def recall(queue: JobQueue, owner: str, id: str) -> Upload | None:
    """The owner's upload with this id; None where there is none, or no longer."""
    match = _ID.fullmatch(id)
    if match is None:
        return None
    with redis_errors_are_unavailable():
        text = queue.connection.get(_key(owner, match[1]))
    return None if text is None else Upload.model_validate_json(str(text))


def _key(owner: str, sha256: str) -> str:
    return f"darkroom:upload:{owner}:{sha256}"
