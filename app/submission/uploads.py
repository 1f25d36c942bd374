"""Uploading an image: decode it, store it, and make its id valid. Knows no route."""

from __future__ import annotations

from app.inputs.reader import store_image
from app.services import Services
from contracts.uploads.images import Upload, remember
from contracts.uploads.owner_bytes import ByteLimit


def store_upload(services: Services, owner: str, data: bytes, field: str) -> tuple[Upload, bool]:
    """Store an image for its owner.

    Args:
        field: what errors call the image.

    Raises:
        ImageTooLarge, NotAnImage, QuotaExceeded, StorageFull, TooManyImages, Unavailable: nothing was stored.

    Returns:
        The upload, and whether it is new.
    """
    ttl_seconds = services.settings.upload_ttl_seconds
    services.disk_space.require(len(data))
    image = services.decoder.decode(data, field, owner)
    services.disk_space.require(len(image.data))
    limit = ByteLimit(owner, services.settings.max_owner_bytes)
    services.owner_bytes.run(
        owner, lambda: store_image(services.storage, services.retention, image, ttl_seconds, limit)
    )
    return remember(services.queue, owner, image, ttl_seconds)
