"""An input image: what is known of it, where it is stored, and what several of a request may take together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.inputs.decoder import ImageDecoder, InputImage
from contracts.errors import ImageTooLarge
from contracts.requests.images.stored_image import StoredImage
from contracts.storage import Storage
from contracts.uploads.owner_bytes import ByteLimit
from contracts.uploads.retention import Retention


@dataclass(frozen=True)
class Input:
    """An image of a request.

    Attributes:
        stored: what validation and the job know of it.
        decoded: the image itself, unless it is in the storage already.
    """

    stored: StoredImage
    decoded: InputImage | None = None


#: Field path (`image`, `controls.0.image`, `references.0`) -> image.
Inputs = Mapping[str, Input]
#: An image beside its request: a file's bytes, decoded, or stored already.
GivenImage = bytes | InputImage | StoredImage


class ReferenceRoom:
    """Shared limit of a request's references: together they may take as much as a single image."""

    def __init__(self, decoder: ImageDecoder) -> None:
        self._max_pixels, self._max_bytes = decoder.max_pixels, decoder.max_bytes
        self._pixels = self._bytes = 0

    def take(self, field: str, image: Input) -> None:
        """Count one more; raises ImageTooLarge where they are too large together."""
        self._pixels += image.stored.width * image.stored.height
        self._bytes += 0 if image.decoded is None else len(image.decoded.data)
        for name, received, most in (
            ("pixels", self._pixels, self._max_pixels),
            ("bytes", self._bytes, self._max_bytes),
        ):
            if received > most:
                message = (
                    f"brings the references up to {received} {name}, and together they may have {most}; scale "
                    "them down, or send fewer"
                )
                raise ImageTooLarge(field, message, f"up to {most} {name} in all references")


def stored_bytes(inputs: Inputs) -> int:
    """How many bytes `InputReader.store` would write at most."""
    return sum(len(image.decoded.data) for image in inputs.values() if image.decoded is not None)


def store_image(
    storage: Storage, retention: Retention, image: InputImage, seconds: float, limit: ByteLimit | None = None
) -> str:
    """Store an image, and hold it for at least this long; return its key. The same bytes are written once.

    Raises:
        QuotaExceeded: it would exceed the limit of its owner's files.
    """
    # Before writing, so that the sweep knows of it.
    key = retention.retain(image.sha256, seconds, image.stored_format, size_bytes=len(image.data), limit=limit)
    write_image(storage, key, image)
    return key


def write_image(storage: Storage, key: str, image: InputImage) -> None:
    """Write an image to its key, unless it is there already."""
    if not storage.exists(key):
        storage.write(key, image.data)
