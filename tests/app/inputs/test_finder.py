"""What each text names: uploads, images of jobs, base64; and the error for each text that names none."""

from __future__ import annotations

import base64
import tracemalloc
from collections.abc import Iterator
from contextlib import closing

import pytest

from app.inputs.codec.limits import Limits
from app.inputs.decoder import ImageDecoder
from app.inputs.finder import ImageFinder
from contracts.errors import ImageTooLarge, InvalidRequest
from contracts.jobs.records import JobState
from contracts.queue.client import JobQueue
from contracts.storage import Storage
from contracts.uploads import images as uploads
from contracts.uploads.retention import Retention
from tests.support.images import encode_solid
from tests.support.parameters import parameters
from tests.support.scripted_worker import ScriptedWorker

RED = encode_solid("RGB", (32, 16), "red")
LIMITS = Limits(max_bytes=10_000, max_side=4096, max_pixels=1_000_000, max_decoded_bytes=4_000_000)
TEXT = base64.b64encode(RED).decode()


@pytest.fixture(scope="module")
def decoder() -> Iterator[ImageDecoder]:
    with closing(ImageDecoder(LIMITS)) as decoder:
        yield decoder


@pytest.fixture
def finder(decoder: ImageDecoder, queue: JobQueue, storage: Storage, retention: Retention) -> ImageFinder:
    return ImageFinder(decoder, queue, storage, retention, "local", None)


def test_white_space_between_letters_costs_no_memory(finder: ImageFinder) -> None:
    """Split at its spaces, this text of 6 MB would take over 100 MB."""
    text = "ab " * 2_000_000
    tracemalloc.start()
    try:
        with pytest.raises(ImageTooLarge):
            finder.find("image", text)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_an_upload_whose_bytes_are_gone_is_refused(
    finder: ImageFinder, decoder: ImageDecoder, queue: JobQueue
) -> None:
    upload, _ = uploads.remember(queue.connection, "local", decoder.decode(RED, "file"), ttl_seconds=60)

    with pytest.raises(InvalidRequest, match="this upload does not exist"):
        finder.find("image", upload.id)


def test_the_image_of_a_completed_job_is_read(
    finder: ImageFinder, queue: JobQueue, worker: ScriptedWorker, storage: Storage
) -> None:
    job = queue.submit(parameters())
    worker.complete(worker.claim())

    assert finder.find("image", f"job:{job.id}/0") == storage.read(queue.fetch(job.id).images[0].key)


def test_an_image_of_a_job_that_has_none_is_refused(
    finder: ImageFinder, queue: JobQueue, worker: ScriptedWorker
) -> None:
    waiting, theirs = queue.submit(parameters(model="a")), queue.submit(parameters(model="b"), owner="other")
    with pytest.raises(InvalidRequest, match="is queued; only completed jobs have images"):
        finder.find("image", f"job:{waiting.id}/0")
    with pytest.raises(InvalidRequest, match="does not exist or has expired"):
        finder.find("image", f"job:{theirs.id}/0")
    worker.complete(worker.claim())
    assert queue.fetch(waiting.id).state is JobState.COMPLETED
    with pytest.raises(InvalidRequest, match="has 1 images, counted from 0"):
        finder.find("image", f"job:{waiting.id}/1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://example.org/cat.png", "URLs are not fetched"),
        ("HTTP://example.org/cat.png", "URLs are not fetched"),
        ("file:///etc/passwd", "is a path or a file name"),
        ("blob:http://example.org/3f1c", "is a path or a file name"),
        ("cat.png", "is a path or a file name, 'cat.png', which this service cannot read; send the image itself"),
        ("images/cat (1).JPEG", "is a path or a file name"),
        ("/home/me/cat", "is a path or a file name"),
        ("~/cat", "is a path or a file name"),
        ("./cat", "is a path or a file name"),
        ("@cat.heic", "is a path or a file name"),
        ("C:\\cats\\cat", "is a path or a file name"),
        ("\\\\server\\cat", "is a path or a file name"),
        ("upload:", "this upload does not exist"),
        ("upload:../../etc/passwd", "this upload does not exist"),
        (f"upload:{'0' * 64}", "this upload does not exist"),
        ("job:abc", "must be job:ID/N"),
        ("job:abc/x", "must be job:ID/N"),
        ("job:*/0", "must be job:ID/N"),
        (f"job:{'0' * 32}/0", "does not exist or has expired"),
        ("data:image/png,abc", "a data: URL must be in base64"),
        ("data:image/png;base64", "a data: URL must be in base64"),
        ("data:image/png;base64,", "is empty"),
        ("  \n ", "is empty"),
        ("not base64 at all!", "is not valid base64"),
        (
            TEXT[: len(TEXT) // 4 * 4 - 3],
            "is not valid base64: its length is not possible, so it may be cut off",
        ),
        (TEXT + "AAAA" if TEXT.endswith("=") else TEXT + "=", "is not valid base64"),
        (TEXT.replace("i", "*", 1), "is not valid base64"),
        ("é" * 8, "is not valid base64"),
    ],
)
def test_an_invalid_reference_is_refused_with_the_allowed_forms(
    finder: ImageFinder, text: str, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        finder.find("image", text)

    (problem,) = caught.value.problems
    assert problem.field == "image"
    assert isinstance(problem.allowed, list)
    assert "upload:ID" in problem.allowed


def test_too_many_bytes_are_refused_before_they_are_decoded(finder: ImageFinder) -> None:
    with pytest.raises(ImageTooLarge, match="larger than 10000 bytes"):
        finder.find("image", "A" * 20_000)
