"""Uploading an image: decode it, store it, and make its id valid. Knows no route."""

from __future__ import annotations

from app.inputs.image import store_image
from app.services import Services
from contracts.uploads.images import Upload, remember
from contracts.uploads.owner_bytes import ByteLimit


def store_upload(
    services: Services, owner: str, data: bytes, field: str, *, is_mask: bool = False
) -> tuple[Upload, bool]:
    """Store an image for its owner.

    Args:
        field: what errors call the image.
        is_mask: whether it is stored as the mask that requests read in it, and named by that.

    Raises:
        InvalidRequest: the mask would change no pixel.
        ImageTooLarge, NotAnImage, QuotaExceeded, StorageFull, TooManyImages, Unavailable: nothing was stored.

    Returns:
        The upload, and whether it is new.
    """
    ttl_seconds = services.settings.upload_ttl_seconds
    services.disk_space.require(len(data))
    decode = services.decoder.decode_mask if is_mask else services.decoder.decode
    image = decode(data, field, owner)
    services.disk_space.require(len(image.data))
    limit = ByteLimit(owner, services.settings.max_owner_bytes)
    services.owner_bytes.run(
        owner, lambda: store_image(services.storage, services.retention, image, ttl_seconds, limit)
    )
    return remember(services.queue.connection, owner, image, ttl_seconds)
