"""Records of uploaded images, and how long they last."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.inputs.decoder import InputImage
from contracts.queue.client import JobQueue
from contracts.uploads.images import forget, list_uploads, recall, remember
from tests.support.waiting import wait_until

IMAGE = InputImage(sha256="ab" * 32, width=3, height=2, format="webp", stored_format="webp", data=b"")


def test_an_upload_is_remembered_until_it_expires(queue: JobQueue) -> None:
    upload, is_new = remember(queue.connection, "me", IMAGE, ttl_seconds=100)

    assert is_new
    assert upload.id == f"upload:{IMAGE.sha256}"
    assert upload.expires_at.timestamp() == pytest.approx(queue.now() + 100, abs=5)
    assert recall(queue.connection, "me", upload.id) == upload


def test_uploading_the_same_image_again_extends_its_time(queue: JobQueue) -> None:
    remember(queue.connection, "me", IMAGE, ttl_seconds=10)

    upload, is_new = remember(queue.connection, "me", IMAGE, ttl_seconds=1000)

    assert not is_new
    assert queue.connection.ttl(f"darkroom:upload:me:{IMAGE.sha256}") > 900
    assert recall(queue.connection, "me", upload.id) == upload


@pytest.mark.parametrize(
    "id", ["", "upload:", "upload:*", "upload:" + "AB" * 32, "upload:" + "cd" * 32, "ab" * 32]
)
def test_an_id_that_was_never_uploaded_is_unknown(queue: JobQueue, id: str) -> None:
    remember(queue.connection, "me", IMAGE, ttl_seconds=10)

    assert recall(queue.connection, "me", id) is None


def test_uploads_are_listed_for_their_owner_the_newest_first_in_pages(queue: JobQueue) -> None:
    made = [
        remember(
            queue.connection, owner, replace(IMAGE, sha256=f"{number:064x}", data=b"x" * number), ttl_seconds=100
        )[0]
        for number, owner in enumerate(["me", "me", "you", "me", "me"])
    ]
    forget(queue.connection, "me", made[0].id)
    again, _ = remember(queue.connection, "me", replace(IMAGE, sha256=made[1].sha256, data=b"x"), ttl_seconds=200)

    first, rest = list_uploads(queue.connection, "me", 2)
    second, end = list_uploads(queue.connection, "me", 2, rest)

    assert [*first, *second] == [again, made[4], made[3]]
    assert [upload.size_bytes for upload in first] == [1, 4]
    assert (rest is None, end) == (False, None)
    assert list_uploads(queue.connection, "nobody", 2) == ([], None)


def test_an_upload_that_has_expired_is_not_listed_and_leaves_the_index(queue: JobQueue) -> None:
    remember(queue.connection, "me", replace(IMAGE, sha256="1" * 64), ttl_seconds=1)
    wait_until(lambda: recall(queue.connection, "me", f"upload:{'1' * 64}") is None)
    assert list_uploads(queue.connection, "me", 9) == ([], None)

    remember(queue.connection, "me", IMAGE, ttl_seconds=100)

    assert queue.connection.zrange("darkroom:uploads:me", 0, -1) == [IMAGE.sha256]
    assert 0 < queue.connection.ttl("darkroom:uploads:me") <= 100
