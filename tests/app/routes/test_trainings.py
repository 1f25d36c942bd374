"""Trainings over HTTP: what is accepted, and what is refused before anything is queued; no worker runs."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.main import create_app
from app.settings import ApiSettings
from contracts.jobs.records import CheckpointRecord, JobState, Progress
from contracts.leases.criteria import ClaimCriteria
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.requests.training.parameters import TrainingParameters
from contracts.settings import SharedSettings
from contracts.storage import Storage
from contracts.uploads.retention import Retention
from tests.support.scripted_worker import ScriptedWorker

FIELDS: dict[str, Any] = {"name": "mine", "model": "shapes-sdxl", "instance_prompt": "a red thing"}


def png(colour: str = "red", size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def archive(entries: Mapping[str, bytes | str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, data in entries.items():
            packed.writestr(name, data)
    return file.getvalue()


def send(client: TestClient, entries: Mapping[str, bytes | str], **fields: Any) -> Any:
    """A training on a zip file of these entries; None leaves a field out."""
    request = {name: value for name, value in {**FIELDS, **fields}.items() if value is not None}
    files = {"file": ("images.zip", archive(entries), "application/zip")}
    return client.post("/v1/trainings", files=files, data={"request": json.dumps(request)})


def refusal(response: Any) -> dict[str, str]:
    """Field -> message of a refused request."""
    assert response.status_code == 422, response.text
    return {error["field"]: error["message"] for error in response.json()["errors"]}


def parameters_of(queue: JobQueue, response: Any) -> TrainingParameters:
    assert response.status_code == 202, response.text
    found = queue.fetch(response.json()["id"]).parameters
    assert isinstance(found, TrainingParameters)
    return found


def test_a_zip_file_becomes_a_training_below_all_images(
    client: TestClient, queue: JobQueue, storage: Storage
) -> None:
    response = send(
        client, {"a.png": png(), "b.png": png("blue"), "b.txt": "a blue thing"}, class_prompt="a thing"
    )
    training = parameters_of(queue, response)
    record = queue.fetch(response.json()["id"])
    assert (record.priority, record.queue) == ("training", "darkroom:training:shapes-sdxl:local")
    assert record.max_run_seconds == 86_400
    assert [one.caption for one in training.images] == ["a red thing", "a blue thing"]
    assert all(storage.exists(one.image) for one in training.images)
    assert (training.settings.resolution, training.settings.rank, training.settings.alpha) == (64, 16, 16)
    assert (training.class_images, training.snapshot_every_steps) == (50, 500)
    links = response.json()["links"]
    assert "cancel" in links
    assert "rerun" not in links
    assert client.post(f"{links['self']}/rerun", json={}).status_code == 409
    assert client.post(links["cancel"]).json()["status"] == "cancelled"


def test_images_may_be_named_in_json(client: TestClient, queue: JobQueue) -> None:
    upload = client.post("/v1/uploads", content=png(), headers={"Content-Type": "image/png"}).json()["id"]
    body = {**FIELDS, "images": [{"image": upload}, {"image": upload, "caption": "again"}]}
    training = parameters_of(queue, client.post("/v1/trainings", json={**body, "train_text_encoder": True}))
    assert [one.caption for one in training.images] == ["a red thing", "again"]
    assert training.settings.train_text_encoder


def test_a_call_that_is_repeated_with_its_key_trains_once(client: TestClient) -> None:
    data, headers = archive({"a.png": png()}), {"Idempotency-Key": "once"}

    def call(content: bytes) -> Any:
        form = {"request": json.dumps(FIELDS)}
        return client.post("/v1/trainings", files={"file": ("a.zip", content)}, data=form, headers=headers)

    first, second = call(data), call(data)
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json()["id"] == first.json()["id"]
    assert call(archive({"a.png": png("blue")})).status_code == 422  # the key was used for another call


@pytest.fixture
def ended(client: TestClient, queue: JobQueue, worker: ScriptedWorker, storage: Storage) -> str:
    """The id of a training that was cancelled, with a checkpoint after 40 of its 60 steps."""
    fields = {"steps": 60, "snapshot_every_steps": 20, "sample_prompts": ["a thing"], "class_prompt": "a thing"}
    id: str = send(client, {"a.png": png(), "b.png": png("blue")}, seed=7, **fields).json()["id"]
    claim = worker.claims.claim(ClaimCriteria(room={"training": 1}))
    assert claim is not None
    key = Retention(queue.connection, storage, 60).retain("c" * 64, 60, "safetensors")
    storage.write(key, b"a checkpoint")
    worker.claims.keep_checkpoint(claim, CheckpointRecord(key=key, progress=Progress(step=40, steps=60)))
    client.post(f"/v1/jobs/{id}/cancel")
    assert worker.claims.finish(claim, JobState.CANCELLED)
    assert client.get(f"/v1/jobs/{id}").json()["checkpoint_step"] == 40
    return id


def test_a_training_that_has_ended_goes_on_with_its_own_images_and_settings(
    client: TestClient, queue: JobQueue, ended: str
) -> None:
    before = queue.fetch(ended).parameters
    assert isinstance(before, TrainingParameters)
    body = {"resume_from": ended, "name": "mine-80", "steps": 80, "rank": 16}  # as it was
    after = parameters_of(queue, client.post("/v1/trainings", json=body))
    assert after.resumed is not None
    assert (after.resumed.id, after.resumed.step) == (ended, 40)
    assert after.resumed.checkpoint in after.inputs
    own = {"name": "mine-80", "settings": before.settings.model_copy(update={"steps": 80})}
    assert after == before.model_copy(update={**own, "resumed": after.resumed})
    assert after.work["image_steps"] == 80  # 40 steps of two images
    assert after.fingerprint("weights") == before.fingerprint("weights")


def test_a_training_cannot_go_on_as_another_one(
    client: TestClient, queue: JobQueue, storage: Storage, ended: str, subtests: pytest.Subtests
) -> None:
    waiting = send(client, {"a.png": png()}).json()["id"]
    image = client.post("/v1/txt2img", json={"prompt": "x"}).json()["id"]
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"resume_from": "nothing"}, "resume_from", "you have no training 'nothing'"),
        ({"resume_from": image}, "resume_from", "you have no training"),
        ({"resume_from": waiting}, "resume_from", "is queued and continues by itself"),
        ({"steps": 40}, "steps", "must be more than the 40 that training"),
        ({"rank": 8}, "rank", f"is 16 in training {ended}"),
        ({"model": "shapes-flux"}, "model", "is 'shapes-sdxl' in training"),
        ({"kind": "controlnet"}, "kind", "is 'lora' in training"),
        ({"seed": 8}, "seed", "is 7 in training"),
        ({"snr_gamma": 5.0}, "snr_gamma", "is not set in training"),
        ({"instance_prompt": "another"}, "instance_prompt", "the images and captions are those of training"),
        ({"images": [{"image": "x"}]}, "images", "the images and captions are those of training"),
    ]
    for fields, field, words in cases:
        with subtests.test(fields=fields):
            body = {"resume_from": ended, "name": "more", **fields}
            found = refusal(client.post("/v1/trainings", json=body))
            assert words in found[field]
            assert set(found) == {field}
    assert "send JSON alone" in refusal(send(client, {"a.png": png()}, resume_from=ended))["resume_from"]
    record = queue.fetch(ended)
    assert record.checkpoint is not None
    storage.delete(record.checkpoint.key)
    found = refusal(client.post("/v1/trainings", json={"resume_from": ended, "name": "more"}))
    assert "has no checkpoint" in found["resume_from"]


def test_a_wrong_field_is_refused_by_name(client: TestClient, storage: Storage, subtests: pytest.Subtests) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"name": None}, "name", "is required"),
        ({"name": "Not a name"}, "name", ""),
        ({"name": "shapes-sdxl-tint"}, "name", "already"),
        ({"model": "nothing"}, "model", "is not a model of this service"),
        ({"rank": 0}, "rank", "at least 1"),
        ({"rank": 129}, "rank", "at most 128"),
        ({"steps": 10, "warmup_steps": 10}, "warmup_steps", "less than steps"),
        ({"class_images": 5}, "class_prompt", "needed with class_images"),
        ({"steps": 1000, "snapshot_every_steps": 1}, "snapshot_every_steps", "20 are allowed"),
        ({"model": "shapes-flux", "snr_gamma": 5}, "snr_gamma", "does not apply"),
        ({"resolution": 63}, "resolution", "at least 64"),
        ({"priority": "high"}, "priority", "training"),
        ({"instance_prompt": None}, "file", "the image 'a.png': has no caption; give it one"),
        ({"images": [{"image": "x"}]}, "images", "leave the field out"),
        ({"unknown": 1}, "unknown", ""),
    ]
    for fields, field, words in cases:
        with subtests.test(fields=fields, field=field, words=words):
            found = refusal(send(client, {"a.png": png()}, **fields))
            assert words in found[field]
            assert storage.find("inputs/") == []


def test_a_textual_inversion_is_stored_with_its_own_defaults(client: TestClient, queue: JobQueue) -> None:
    fields = {"kind": "textual_inversion", "instance_prompt": "a Mine thing", "initial_text": "red"}
    settings = parameters_of(queue, send(client, {"a.png": png()}, **fields)).settings
    assert (settings.vectors, settings.initial_text, settings.learning_rate) == (1, "red", 0.001)


def test_what_a_textual_inversion_cannot_use_is_refused_by_name(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"kind": "lora", "vectors": 2}, "vectors", "textual_inversion only"),
        ({"rank": 4}, "rank", "lora only"),
        ({"train_text_encoder": True}, "train_text_encoder", "lora only"),
        ({"class_prompt": "a thing"}, "class_prompt", "lora only"),
        ({"vectors": 33}, "vectors", "at most 32"),
        ({"initial_text": "?"}, "initial_text", ""),
        ({"instance_prompt": "a red thing"}, "instance_prompt", "the word 'mine'"),
        ({"sample_prompts": ["mine", "mine-2"]}, "sample_prompts.1", "the word 'mine'"),
        ({"model": "shapes-flux"}, "model", "textual inversion is trained on"),
    ]
    for fields, field, words in cases:
        with subtests.test(fields=fields, field=field, words=words):
            usual = {"kind": "textual_inversion", "instance_prompt": "a mine thing"}
            found = refusal(send(client, {"a.png": png()}, **{**usual, **fields}))
            assert words in found[field]
            assert set(found) == {field}


def test_pairs_become_the_training_of_a_controlnet(client: TestClient, queue: JobQueue, storage: Storage) -> None:
    entries = {"a.png": png("blue"), "a.control.png": png("white")}
    training = parameters_of(queue, send(client, entries, kind="controlnet"))
    assert (training.settings.kind, training.settings.learning_rate) == ("controlnet", 1e-5)
    (pair,) = training.images
    assert all(storage.exists(key) for key in pair.keys)
    assert training.inputs == list(pair.keys)
    body = {**FIELDS, "kind": "controlnet"}
    one = base64.b64encode(png()).decode()
    images = [{"image": one, "conditioning_image": one}]
    (named,) = parameters_of(queue, client.post("/v1/trainings", json={**body, "images": images})).images
    assert named.conditioning_image == named.image


def test_what_a_controlnet_cannot_learn_from_is_refused_by_name(
    client: TestClient, storage: Storage, subtests: pytest.Subtests
) -> None:
    cases: list[tuple[dict[str, Any], dict[str, bytes], str, str]] = [
        ({}, {"a.png": png()}, "file", "the image 'a.png': needs a control image"),
        ({"kind": "lora"}, {"a.png": png(), "a.control.png": png()}, "file", "'a.control.png': applies to"),
        (
            {},
            {"a.png": png(), "a.control.png": png(size=(64, 64))},
            "file",
            "the control image 'a.control.png': is 64 × 64 pixels, and its image 40 × 30",
        ),
        ({}, {"a.png": png(), "a.control.png": b"broken"}, "file", "'a.control.png': is not an image"),
        (
            {},
            {"a.png": png(), "a.control.png": png(), "a.control.jpg": png()},
            "file",
            "two control images of 'a': 'a.control.png' and 'a.control.jpg'",
        ),
        ({"class_prompt": "a thing"}, {"a.png": png(), "a.control.png": png()}, "class_prompt", "lora only"),
        (
            {"model": "shapes-big"},
            {"a.png": png(), "a.control.png": png()},
            "model",
            "sd15, sdxl, sd3, flux, qwen",
        ),
        (
            {"model": "shapes-flux", "snr_gamma": 5.0},
            {"a.png": png(), "a.control.png": png()},
            "snr_gamma",
            "does not apply to this model",
        ),
        ({"name": "shapes-sdxl-canny"}, {"a.png": png(), "a.control.png": png()}, "name", "a ControlNet"),
        ({"kind": "lora"}, {f"{n}.png": png() for n in range(201)}, "images", "at most 200 for a LoRA, got 201"),
    ]
    for fields, entries, field, words in cases:
        with subtests.test(fields=fields, entries=entries, field=field, words=words):
            found = refusal(send(client, entries, **{"kind": "controlnet", **fields}))
            assert words in found[field]
            assert set(found) == {field}
            assert storage.find("inputs/") == []


def test_bad_data_is_refused_by_name(client: TestClient, storage: Storage, subtests: pytest.Subtests) -> None:
    cases: list[tuple[Mapping[str, bytes | str], str, str]] = [
        ({}, "file", "no images"),
        ({"a.png": png(), "b.png": b"broken"}, "file", "'b.png': is not an image"),
        ({"a.png": png()[:60]}, "file", "'a.png'"),
        ({"a.png": png(), "run.sh": "x"}, "file", "'run.sh'"),
    ]
    for entries, field, words in cases:
        with subtests.test(entries=entries, field=field, words=words):
            assert words in refusal(send(client, entries))[field]
            assert storage.find("inputs/") == []


def test_a_training_without_images_is_refused(client: TestClient) -> None:
    assert "1 to 200 images" in refusal(client.post("/v1/trainings", json=FIELDS))["images"]


def test_a_zip_file_over_the_limit_is_413(settings: SharedSettings) -> None:
    with TestClient(create_app(ApiSettings(shared=settings, max_training_bytes=2000))) as client:
        assert send(client, {"a.png": bytes(100_000)}).status_code == 413


def test_the_operators_check_of_prompts_reads_captions_and_sample_prompts(settings: SharedSettings) -> None:
    checked = ApiSettings(shared=settings, prompt_check="words", prompt_check_words=["star"])
    with TestClient(create_app(checked)) as client:
        found = refusal(send(client, {"a.png": png(), "a.txt": "a Star"}, sample_prompts=["stars", "a star!"]))
    assert list(found) == ["sample_prompts.1", "file"]
    assert "'a.png'" in found["file"]


@pytest.mark.parametrize("report", [{"trains": False}, {"trains": True}])
def test_a_training_is_refused_where_every_worker_says_that_it_never_trains(
    client: TestClient, queue: JobQueue, report: dict[str, bool]
) -> None:
    publish(queue.connection, WorkerReport(id="w", state="idle", **report), 30)
    response = send(client, {"a.png": png()})
    if report["trains"]:
        assert response.status_code == 202
    else:
        assert "DARKROOM_WORKER_TRAINING" in refusal(response)["model"]


def test_no_other_request_may_choose_the_priority_of_trainings(client: TestClient) -> None:
    response = client.post("/v1/txt2img", json={"prompt": "x", "priority": "training"})
    assert "priority" in refusal(response)
    training = send(client, {"a.png": png()}).json()["id"]
    assert client.post(f"/v1/admin/jobs/{training}/priority", params={"priority": "high"}).status_code == 409
