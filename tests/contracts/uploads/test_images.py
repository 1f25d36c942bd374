"""Records of uploaded images, and how long they last."""

from __future__ import annotations

import pytest

from app.inputs.decoder import InputImage
from contracts.queue.client import JobQueue
from contracts.uploads.images import recall, remember

IMAGE = InputImage(sha256="ab" * 32, width=3, height=2, format="webp", stored_format="webp", data=b"")


def test_an_upload_is_remembered_until_it_expires(queue: JobQueue) -> None:
    upload, is_new = remember(queue, "me", IMAGE, ttl_seconds=100)

    assert is_new
    assert upload.id == f"upload:{IMAGE.sha256}"
    assert upload.expires_at.timestamp() == pytest.approx(queue.now() + 100, abs=5)
    assert recall(queue, "me", upload.id) == upload


def test_uploading_the_same_image_again_extends_its_time(queue: JobQueue) -> None:
    remember(queue, "me", IMAGE, ttl_seconds=10)

    upload, is_new = remember(queue, "me", IMAGE, ttl_seconds=1000)

    assert not is_new
    assert queue.connection.ttl(f"darkroom:upload:me:{IMAGE.sha256}") > 900
    assert recall(queue, "me", upload.id) == upload


@pytest.mark.parametrize(
    "id", ["", "upload:", "upload:*", "upload:" + "AB" * 32, "upload:" + "cd" * 32, "ab" * 32]
)
def test_an_id_that_was_never_uploaded_is_unknown(queue: JobQueue, id: str) -> None:
    remember(queue, "me", IMAGE, ttl_seconds=10)

    assert recall(queue, "me", id) is None
