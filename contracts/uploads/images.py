"""Images that clients upload ahead of a request: one Redis string each, which expires, and one index per owner.

Knows what is remembered of an upload; neither HTTP nor how images are decoded.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Protocol, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from redis import Redis

from contracts.left_out_fields import OrLeftOut
from contracts.redis import keys
from contracts.redis.connection import redis_errors_are_unavailable, unix_seconds

_ID = re.compile(r"upload:([0-9a-f]{64})")


class Upload(BaseModel):
    """One upload, as clients see it and as it is remembered."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    id: str = Field(description="Name of the image in requests: `upload:` and its SHA-256.")
    sha256: str = Field(description="SHA-256 of the image as it is stored, in hexadecimal.")
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")
    format: str = Field(description="File format in which it is stored.")
    expires_at: AwareDatetime = Field(
        description="When the upload is deleted; uploading the same image again extends it."
    )
    size_bytes: OrLeftOut[int] = Field(
        None, description="Bytes of the image as it is stored; absent for one that an older version stored."
    )
    color_profile: OrLeftOut[str] = Field(
        None, description="How the file's color profile was handled; absent if nothing had to be done."
    )


class DecodedImage(Protocol):
    """Record of an image that has been decoded and stored."""

    @property
    def sha256(self) -> str:
        """Of the stored bytes, in hexadecimal."""

    @property
    def width(self) -> int:
        """In pixels."""

    @property
    def height(self) -> int:
        """In pixels."""

    @property
    def format(self) -> str:
        """Of the bytes that were sent: `png`, `jpeg`, `webp`, …"""

    @property
    def data(self) -> bytes:
        """The bytes that are stored."""

    @property
    def color_profile(self) -> str | None:
        """What was done about the color profile; None: nothing had to be."""


def remember(connection: Redis, owner: str, image: DecodedImage, ttl_seconds: int) -> tuple[Upload, bool]:
    """Make a stored image's id valid for its owner, for `ttl_seconds` from now on.

    Returns:
        The upload, and whether it is new.
    """
    with redis_errors_are_unavailable():
        now = unix_seconds(connection)
        expires_at = now + ttl_seconds
        upload = Upload(
            id=f"upload:{image.sha256}",
            sha256=image.sha256,
            width=image.width,
            height=image.height,
            format=image.format,
            size_bytes=len(image.data),
            color_profile=image.color_profile,
            expires_at=datetime.fromtimestamp(expires_at, UTC),
        )
        index = keys.OWNER_UPLOADS + owner
        with connection.pipeline(transaction=True) as pipeline:
            pipeline.set(_key(owner, image.sha256), upload.model_dump_json(), ex=ttl_seconds, get=True)
            pipeline.zremrangebyscore(index, "-inf", now)
            pipeline.zadd(index, {image.sha256: expires_at})
            pipeline.expire(index, ttl_seconds)
            known, *_ = pipeline.execute()
    return upload, known is None


def recall(connection: Redis, owner: str, id: str) -> Upload | None:
    """The owner's upload with this id; None where there is none, or no longer."""
    match = _ID.fullmatch(id)
    if match is None:
        return None
    with redis_errors_are_unavailable():
        text = connection.get(_key(owner, match[1]))
    return None if text is None else Upload.model_validate_json(str(text))


def list_uploads(
    connection: Redis, owner: str, limit: int, before: float | None = None
) -> tuple[list[Upload], float | None]:
    """The owner's uploads, the one that expires last first.

    Args:
        before: what the former page returned beside its uploads; None: the first page.

    Returns:
        Up to `limit` uploads, and where the next page begins; None after the last one.
    """
    with redis_errors_are_unavailable():
        highest = "+inf" if before is None else f"({before!r}"
        index = keys.OWNER_UPLOADS + owner
        found = cast(
            "list[tuple[str, float]]",
            connection.zrevrangebyscore(
                index, highest, f"({unix_seconds(connection)!r}", start=0, num=limit + 1, withscores=True
            ),
        )
        page = found[:limit]
        texts = connection.mget([_key(owner, sha256) for sha256, _ in page]) if page else []
    uploads = [
        Upload.model_validate_json(str(text)) for text in cast("list[str | None]", texts) if text is not None
    ]
    return uploads, page[-1][1] if len(found) > limit else None


def forget(connection: Redis, owner: str, id: str) -> bool:
    """Make an upload's id invalid for its owner; False where it was not valid. The bytes expire by themselves."""
    match = _ID.fullmatch(id)
    if match is None:
        return False
    with redis_errors_are_unavailable():
        connection.zrem(keys.OWNER_UPLOADS + owner, match[1])
        return bool(connection.delete(_key(owner, match[1])))


def _key(owner: str, sha256: str) -> str:
    return keys.UPLOAD + f"{owner}:{sha256}"
