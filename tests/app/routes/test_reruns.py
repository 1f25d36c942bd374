"""Jobs run again over HTTP: unchanged, with changes, with their images, through the full validation."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from contracts.queue.client import JobQueue
from contracts.storage import Storage
from contracts.uploads.retention import Retention
from tests.support.images import data_url, encode_solid
from tests.support.requests import BODIES, CONTROL, IMAGE, submit
from tests.support.scripted_worker import ScriptedWorker


def rerun(client: TestClient, id: str, **changes: Any) -> dict[str, Any]:
    response = client.post(f"/v1/jobs/{id}/rerun", json=changes)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    assert response.headers["Location"].endswith(job["id"])
    return job


@pytest.mark.parametrize("task", BODIES)
@pytest.mark.parametrize("body", [b"", b"{}"])
def test_a_finished_job_of_every_task_runs_again_with_the_same_parameters(
    client: TestClient, worker: ScriptedWorker, queue: JobQueue, task: str, body: bytes
) -> None:
    first = submit(client, task, metadata={"team": "ads"}, priority="high", response_format="b64_json")
    worker.complete(worker.claim())

    again = client.post(
        f"/v1/jobs/{first['id']}/rerun", content=body, headers={"Content-Type": "application/json"}
    ).json()

    before, after = queue.fetch(first["id"]), queue.fetch(again["id"])
    assert again["id"] != first["id"]
    assert after.parameters.model_copy(update={"batchable": True}) == before.parameters
    assert after.parameters.batchable is None  # a named seed: the operator decides, and it is exact by default
    assert (after.metadata, after.priority, after.response_format) == ({"team": "ads"}, "high", "b64_json")
    receipt = client.get(f"/v1/jobs/{first['id']}").json()["receipt"]
    assert receipt["parameters"]["seed"] == after.parameters.seed


def test_fields_of_the_body_replace_the_jobs_own_and_null_resets_them(client: TestClient, queue: JobQueue) -> None:
    id = submit(client, seed=7, num_inference_steps=9, negative_prompt="green", metadata={"a": "b"})["id"]

    again = rerun(client, id, prompt="a blue star", seed=8, negative_prompt=None, num_inference_steps=None)

    parameters = queue.fetch(again["id"]).parameters
    assert (parameters.prompt, parameters.seed) == ("a blue star", 8)
    assert (parameters.negative_prompt, parameters.num_inference_steps) == (None, 12)
    assert again["metadata"] == {"a": "b"}


def test_a_second_pass_is_made_again(client: TestClient, queue: JobQueue) -> None:
    id = submit(client, seed=7, hires={"scale": 1.5, "strength": 0.4})["id"]
    assert queue.fetch(rerun(client, id)["id"]).parameters.hires == queue.fetch(id).parameters.hires


def test_a_null_seed_is_drawn_again(client: TestClient, queue: JobQueue) -> None:
    id = submit(client, seed=7)["id"]

    seeds = {queue.fetch(rerun(client, id, seed=None)["id"]).parameters.seed for _ in range(3)}

    assert len(seeds) == 3


def test_changes_go_through_the_full_validation(
    client: TestClient, queue: JobQueue, subtests: pytest.Subtests
) -> None:
    ids = {task: submit(client, task)["id"] for task in BODIES}
    for task, changes, field in [
        ("txt2img", {"width": 65}, "width"),
        ("txt2img", {"scheduler": "flow_euler"}, "scheduler"),
        ("txt2img", {"image": IMAGE}, "image"),
        ("txt2img", {"prompt": None}, "prompt"),
        ("txt2img", {"task": "img2img"}, "task"),
        ("txt2img", {"mode": "txt2img"}, "mode"),
        ("txt2img", {"num_images": "2"}, "num_images"),
        ("img2img", {"image": None}, "image"),
        ("img2img", {"image": "stored"}, "image"),
        ("inpaint", {"mask_image": data_url(encode_solid("L", (32, 32), 1))}, "mask_image"),
        ("controlnet", {"controls": []}, "controls"),
        ("controlnet", {"controls": [CONTROL | {"image": "stored"}]}, "controls.0.image"),
    ]:
        with subtests.test(task=task, changes=changes, field=field):
            response = client.post(f"/v1/jobs/{ids[task]}/rerun", json=changes)

            assert response.status_code in (415, 422), response.text
            assert field in [entry["field"] for entry in response.json()["errors"]]
            assert queue.connection.zcard("darkroom:jobs:local") == len(ids)


def test_a_body_that_is_not_a_json_object_is_refused(client: TestClient, subtests: pytest.Subtests) -> None:
    path = f"/v1/jobs/{submit(client)['id']}/rerun"
    for body, status in [(b"{", 400), (b"[]", 422), (b'"x"', 422), (b'{"seed": NaN}', 400)]:
        with subtests.test(body=body):
            response = client.post(path, content=body, headers={"Content-Type": "application/json"})
            assert response.status_code == status


def test_one_image_is_replaced_and_the_others_are_kept(client: TestClient, queue: JobQueue) -> None:
    id = submit(client, "inpaint")["id"]

    again = rerun(client, id, image=data_url(encode_solid("RGB", (64, 64), "blue")))

    before, after = queue.fetch(id).parameters, queue.fetch(again["id"]).parameters
    assert after.image != before.image
    assert after.mask_image == before.mask_image


def test_a_rerun_keeps_its_images_when_the_first_job_is_deleted(
    client: TestClient, queue: JobQueue, storage: Storage, worker: ScriptedWorker, retention: Retention
) -> None:
    id = submit(client, "img2img")["id"]
    worker.complete(worker.claim())
    again = rerun(client, id)["id"]
    client.delete(f"/v1/jobs/{id}")
    for key in queue.connection.zrange("darkroom:inputs", 0, -1):
        queue.connection.zadd("darkroom:inputs", {str(key): 1})
    while retention.sweep():
        pass

    assert storage.find("inputs/") == queue.fetch(again).parameters.inputs != []


def test_a_rerun_whose_image_was_lost_is_refused_by_field(
    client: TestClient, queue: JobQueue, storage: Storage
) -> None:
    id = submit(client, "img2img")["id"]
    for key in queue.fetch(id).parameters.inputs:
        storage.delete(key)

    response = client.post(f"/v1/jobs/{id}/rerun")

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "image")


def test_a_rerun_can_wait_and_have_an_idempotency_key(client: TestClient, queue: JobQueue) -> None:
    id = submit(client)["id"]
    headers = {"Idempotency-Key": "k", "Prefer": "wait=1"}

    first, second = (client.post(f"/v1/jobs/{id}/rerun", json={"seed": 3}, headers=headers) for _ in range(2))

    assert first.json()["id"] == second.json()["id"]
    assert second.headers["Idempotency-Replayed"] == "true"
    assert first.headers["Preference-Applied"] == "wait=1"
    assert queue.connection.zcard("darkroom:jobs:local") == 2


def test_an_unknown_job_or_another_owners_cannot_run_again(client: TestClient, queue: JobQueue) -> None:
    theirs = queue.submit(queue.fetch(submit(client)["id"]).parameters, owner="somebody")

    for id in ("unknown", theirs.id):
        assert client.post(f"/v1/jobs/{id}/rerun").status_code == 404
