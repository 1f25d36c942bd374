"""Uploads over HTTP: raw or as a form, checked like every image, referenced by later requests."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.errors import Conflict
from contracts.queue.client import JobQueue
from contracts.queue.idempotency import CallIdentity, Idempotency, IdempotencyHold
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.images import encode_solid, png_header

RED = encode_solid("RGB", (64, 96), "red", "JPEG")
RAW = {"Content-Type": "image/jpeg"}


def test_raw_bytes_become_an_upload(client: TestClient, queue: JobQueue, storage: Storage) -> None:
    response = client.post("/v1/uploads", content=RED, headers=RAW)

    sha256 = hashlib.sha256(RED).hexdigest()
    upload = response.json()
    left = (datetime.fromisoformat(upload.pop("expires_at")) - datetime.now(UTC)).total_seconds()
    assert response.status_code == 201
    facts = {"width": 64, "height": 96, "format": "jpeg", "size_bytes": len(RED)}
    assert upload == {"id": f"upload:{sha256}", "sha256": sha256, **facts}
    assert 86_300 < left < 86_500
    assert 86_300 < queue.connection.ttl(f"darkroom:upload:local:{sha256}") <= 86_400
    (key,) = storage.find("inputs/")
    assert key.startswith(f"inputs/{sha256}.")


def test_a_form_becomes_the_same_upload(client: TestClient) -> None:
    raw = client.post("/v1/uploads", content=RED, headers=RAW).json()

    form = client.post("/v1/uploads", files={"file": ("a.jpg", RED, "image/jpeg")})

    assert form.status_code == 200
    assert form.json()["id"] == raw["id"]
    assert form.json()["expires_at"] >= raw["expires_at"]


def test_the_format_is_read_from_the_bytes_and_not_the_header(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    for kind, color in [("application/octet-stream", "red"), ("image/png", "blue"), ("IMAGE/JPEG; q=1", "green")]:
        with subtests.test(kind=kind):
            content = encode_solid("RGB", (64, 64), color, "JPEG")
            response = client.post("/v1/uploads", content=content, headers={"Content-Type": kind})

            assert (response.status_code, response.json()["format"]) == (201, "jpeg")


def test_a_request_can_refer_to_an_upload(client: TestClient, queue: JobQueue, storage: Storage) -> None:
    upload = client.post("/v1/uploads", content=RED, headers=RAW).json()

    job = client.post("/v1/img2img", json={"prompt": "x", "image": upload["id"]}).json()

    parameters = queue.fetch(job["id"]).parameters
    assert storage.find("inputs/") == [parameters.image]
    assert (parameters.width, parameters.height) == (64, 96)


def test_a_mask_may_be_uploaded_as_requests_read_it(client: TestClient, queue: JobQueue) -> None:
    drawn = encode_solid("RGB", (64, 96), "white", "JPEG")
    headers = RAW | {"Idempotency-Key": "k"}
    image = client.post("/v1/uploads", content=drawn, headers=headers).json()
    reused = client.post("/v1/uploads?mask=true", content=drawn, headers=headers)
    mask = client.post("/v1/uploads?mask=true", content=drawn, headers=RAW).json()
    black = client.post("/v1/uploads?mask=true", content=encode_solid("L", (64, 96), 0), headers=RAW)

    body = {"prompt": "x", "image": image["id"]}
    named = [client.post("/v1/inpaint", json=body | {"mask_image": one["id"]}).json() for one in (image, mask)]

    assert mask["sha256"] != image["sha256"] == hashlib.sha256(drawn).hexdigest()
    assert {str(queue.fetch(job["id"]).parameters.mask_image)[7:71] for job in named} == {mask["sha256"]}
    assert (reused.status_code, black.status_code, black.json()["errors"][0]["field"]) == (422, 422, "file")


def test_an_expired_upload_is_refused(client: TestClient, queue: JobQueue) -> None:
    upload = client.post("/v1/uploads", content=RED, headers=RAW).json()
    queue.connection.delete(f"darkroom:upload:local:{upload['sha256']}")

    problem = client.post("/v1/img2img", json={"prompt": "x", "image": upload["id"]}).json()

    assert (problem["status"], problem["errors"][0]["field"]) == (422, "image")


def test_a_bad_upload_is_refused_and_leaves_nothing(
    client: TestClient, queue: JobQueue, settings: SharedSettings, subtests: pytest.Subtests
) -> None:
    for content, kind, status, code in [
        (b"", "image/png", 415, "not_a_picture"),
        (b"not an image", "image/png", 415, "not_a_picture"),
        (RED[: len(RED) // 2], "image/jpeg", 415, "not_a_picture"),
        (png_header(20_000, 20_000), "image/png", 413, "picture_too_large"),
        (RED, "application/json", 415, "unsupported_media_type"),
        (RED, "text/plain", 415, "unsupported_media_type"),
        (RED, "multipart/form-data; boundary=x", 400, "unreadable_body"),
    ]:
        with subtests.test(content=content, kind=kind, status=status, code=code):
            response = client.post("/v1/uploads", content=content, headers={"Content-Type": kind})

            assert (response.status_code, response.json()["code"]) == (status, code)
            assert queue.connection.keys("*") == []
            assert not [path for path in settings.data.rglob("*") if path.is_file()]


def test_a_form_without_the_file_is_refused(client: TestClient) -> None:
    problem = client.post("/v1/uploads", files={"image": RED}).json()

    assert (problem["status"], problem["errors"][0]["field"]) == (422, "file")


@pytest.mark.parametrize(("more", "code"), [(1, "picture_too_large"), (200_000, "body_too_large")])
def test_an_upload_over_the_limit_is_refused(settings: SharedSettings, more: int, code: str) -> None:
    large = encode_solid("RGB", (64, 64), "red", "BMP")
    small = ApiSettings(shared=settings, max_image_bytes=len(large))
    with TestClient(create_app(small)) as client:
        assert client.post("/v1/uploads", content=large, headers=RAW).status_code == 201
        response = client.post("/v1/uploads", content=large + b"\0" * more, headers=RAW)

    assert (response.status_code, response.json()["code"]) == (413, code)


def test_a_repeated_call_returns_the_same_upload(client: TestClient) -> None:
    headers = RAW | {"Idempotency-Key": "k"}
    first = client.post("/v1/uploads", content=RED, headers=headers)
    second = client.post("/v1/uploads", content=RED, headers=headers)
    form = client.post("/v1/uploads", files={"file": ("a.jpg", RED)}, headers={"Idempotency-Key": "k"})

    assert (first.status_code, second.status_code, form.status_code) == (201, 200, 200)
    assert first.json() == second.json() == form.json()
    replayed = [answer.headers.get("Idempotency-Replayed") for answer in (first, second, form)]
    assert replayed == [None, "true", "true"]


def test_a_key_that_is_reused_for_another_upload_or_call_is_refused(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    client.post("/v1/uploads", content=RED, headers=RAW | headers)

    other = client.post("/v1/uploads", content=encode_solid("RGB", (64, 64), "blue"), headers=RAW | headers)
    job = client.post("/v1/txt2img", json={"prompt": "x"}, headers=headers)

    for answer in (other, job):
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


def test_a_refused_upload_does_not_use_up_its_key(client: TestClient, queue: JobQueue) -> None:
    headers = {"Idempotency-Key": "k"}
    assert client.post("/v1/uploads", content=b"not an image", headers=RAW | headers).status_code == 415
    assert queue.connection.keys("*") == []

    assert client.post("/v1/uploads", content=RED, headers=RAW | headers).status_code == 201


def test_a_replay_of_an_expired_upload_is_gone(client: TestClient, queue: JobQueue) -> None:
    headers = RAW | {"Idempotency-Key": "k"}
    client.post("/v1/uploads", content=RED, headers=headers)
    queue.connection.delete(*queue.connection.keys("darkroom:upload:*"))

    gone = client.post("/v1/uploads", content=RED, headers=headers)

    assert (gone.status_code, gone.json()["code"]) == (410, "gone")


def test_an_upload_that_another_call_is_creating_is_a_conflict(client: TestClient, queue: JobQueue) -> None:
    call = CallIdentity("local", "k", "POST /v1/uploads", RED)
    keys = Idempotency(queue.connection, lease_seconds=60)
    hold = keys.begin(call)
    assert isinstance(hold, IdempotencyHold)

    busy = client.post("/v1/uploads", content=RED, headers=RAW | {"Idempotency-Key": "k"})
    assert (busy.status_code, busy.json()["code"]) == (409, "conflict")

    queue.connection.delete(hold.key)  # its lease has run out
    assert client.post("/v1/uploads", content=RED, headers=RAW | {"Idempotency-Key": "k"}).status_code == 201
    with pytest.raises(Conflict):
        keys.bind(hold, "upload:other")
