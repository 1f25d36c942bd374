"""What becomes of a job's files when the job is forgotten. Knows storage keys; knows no HTTP."""

from __future__ import annotations

from contracts.storage import Storage


def remove_images(storage: Storage, id: str) -> None:
    """Remove all that any attempt of a job has stored.

    Raises:
        Unavailable: the storage does not answer; some may be left.
    """
    storage.clear(f"images/{id}/")
