"""Jobs that no worker can run are refused before they are queued; jobs of which that is unknown are accepted."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from contracts.queue.client import JobQueue
from contracts.requests.training.settings import EIGHT_BIT
from tests.support.images import to_data_url
from tests.support.requests import BODIES
from tests.support.worker_reports import LARGE, report_worker


def problem(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/txt2img", json=body)
    assert response.status_code == 422, response.text
    assert client.get("/v1/jobs").json()["data"] == []
    (found,) = response.json()["errors"]
    assert found["message"].startswith("no worker has enough memory: no plan fits ")
    return dict(found)


def test_an_image_too_large_for_every_worker_is_refused_with_a_size_that_fits(
    client: TestClient, queue: JobQueue
) -> None:
    report_worker(queue, "small", 6)
    report_worker(queue, "larger", 8)
    found = problem(client, **LARGE)
    assert found["field"] == "width"
    assert "8.0 MiB" in found["message"]
    max_pixels = int(found["allowed"].removeprefix("width × height ≤ "))
    side = int(max_pixels**0.5) // 8 * 8
    assert 64 <= side < 256
    accepted = client.post("/v1/txt2img", json={**LARGE, "width": side, "height": side})
    assert accepted.status_code == 202


def test_too_many_images_are_refused_by_their_number_and_not_their_size(
    client: TestClient, queue: JobQueue
) -> None:
    report_worker(queue, "small", 24)
    found = problem(client, **LARGE, num_images=8)
    assert found["field"] == "num_images"
    fits = int(found["allowed"].removeprefix("1–"))
    assert 1 <= fits < 8
    assert client.post("/v1/txt2img", json={**LARGE, "num_images": fits}).status_code == 202


def test_a_model_that_fits_on_no_worker_is_refused_by_the_model_field(client: TestClient, queue: JobQueue) -> None:
    report_worker(queue, "tiny", 0.5)
    assert problem(client, prompt="a red circle", model="shapes-sd3")["field"] == "model"


def test_one_large_worker_is_enough(client: TestClient, queue: JobQueue) -> None:
    report_worker(queue, "small", 1)
    report_worker(queue, "large", 256)
    assert client.post("/v1/txt2img", json=LARGE).status_code == 202


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_job_is_accepted_while_capacities_are_unknown(client: TestClient, queue: JobQueue, workers: int) -> None:
    if workers > 0:
        report_worker(queue, "silent", None)
    if workers > 1:
        report_worker(queue, "small", 1)
    assert client.post("/v1/txt2img", json=LARGE).status_code == 202


def test_a_draining_worker_does_not_count(client: TestClient, queue: JobQueue) -> None:
    report_worker(queue, "leaving", 256, state="draining")
    report_worker(queue, "small", 1)
    assert client.post("/v1/txt2img", json=LARGE).status_code == 422


@pytest.mark.parametrize("task", BODIES)
def test_every_task_is_checked_against_the_memory_of_the_workers(
    client: TestClient, queue: JobQueue, task: str
) -> None:
    report_worker(queue, "tiny", 0.5)
    response = client.post(f"/v1/{task}", json=BODIES[task])
    assert response.status_code == 422
    assert "no worker has enough memory" in response.json()["errors"][0]["message"]


@pytest.mark.parametrize(("budget_mib", "status"), [(4, 422), (200, 202)])
def test_an_upscaler_or_eraser_that_no_worker_has_memory_for_is_refused(
    client: TestClient, queue: JobQueue, budget_mib: float, status: int
) -> None:
    report_worker(queue, "only", budget_mib)
    image, mask = (to_data_url(Image.new(mode, (300, 200), "white")) for mode in ("RGB", "L"))
    bodies: dict[str, dict[str, Any]] = {
        "upscale": {"image": image},
        "erase": {"image": image, "mask_image": mask},
    }
    for task, body in bodies.items():
        response = client.post(f"/v1/{task}", json=body)
        assert response.status_code == status, response.text
        if status == 422:
            (found,) = response.json()["errors"]
            assert found["field"] == "model"
            assert found["message"].startswith("no worker has enough memory: shapes-")
            assert "of 4.0 MiB" in found["message"]


def test_the_upscaler_of_a_second_pass_counts(client: TestClient, queue: JobQueue) -> None:
    report_worker(queue, "only", 8)  # enough for the images, and not for a tile
    body = {"prompt": "a circle", "model": "shapes-sdxl", "hires": {"scale": 2, "upscaler": "shapes-upscaler"}}
    found = client.post("/v1/txt2img", json=body).json()["errors"][0]
    assert found["field"] == "hires.upscaler"
    assert "shapes-upscaler needs 8.9 MiB of 8.0 MiB" in found["message"]


@pytest.mark.parametrize(("ready", "status"), [([], 422), ([EIGHT_BIT], 202)])
def test_an_optimizer_that_no_worker_has_is_refused_by_name(
    client: TestClient, queue: JobQueue, ready: list[str], status: int
) -> None:
    report_worker(queue, "only", 256, ready=ready)
    image = to_data_url(Image.new("RGB", (64, 64), "white"))
    body = {"name": "mine", "images": [{"image": image, "caption": "a thing"}], "optimizer": "adamw8bit"}
    response = client.post("/v1/trainings", json=body)
    assert response.status_code == status, response.text
    if status == 422:
        (found,) = response.json()["errors"]
        assert (found["field"], found["allowed"]) == ("optimizer", ["adamw"])
        assert "bitsandbytes" in found["message"]
