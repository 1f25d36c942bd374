"""What the service does when things go wrong, and how it recovers. Most tests share one service."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from contracts.settings import BUILT_IN_CATALOGUE
from tests.support.running_service import RunningService
from tests.support.service_processes import is_alive
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service with a model and an adapter whose files break once it runs, and with short leases."""
    folder = tmp_path_factory.mktemp("fragile")
    built_in = BUILT_IN_CATALOGUE.parent
    rows = BUILT_IN_CATALOGUE.read_text(encoding="utf-8").replace('source = "', f'source = "{built_in}/')
    shutil.copytree(built_in / "shapes-sdxl", folder / "broken")
    shutil.copy(built_in / "loras" / "shapes-sdxl-tint.safetensors", folder / "broken.safetensors")
    rows += (
        '\n[[models]]\nid = "broken"\nfamily = "sdxl"\nsource = "broken"\n'
        "defaults = { width = 64, height = 64 }\n"
        '\n[[loras]]\nid = "broken-lora"\nfamily = "sdxl"\nsource = "broken.safetensors"\n'
    )
    (folder / "catalogue.toml").write_text(rows, encoding="utf-8")
    environment = {
        "DARKROOM_CATALOGUE": str(folder / "catalogue.toml"),
        "DARKROOM_QUEUE_LEASE_SECONDS": "5",
    }
    running = RunningService(folder / "data", environment=environment)
    for file in (folder / "broken.safetensors", *(folder / "broken").rglob("*.safetensors")):
        file.write_bytes(b"not weights")
    yield running
    if running.process.poll() is None:
        running.stop()
    assert running.process.returncode == 0, running.log.read_text(errors="replace")[-3000:]


def children(service: RunningService, word: str) -> list[psutil.Process]:
    """The service's processes with a word in their command line."""
    found = psutil.Process(service.process.pid).children(recursive=True)
    return [child for child in found if word in child.cmdline() or any(word in part for part in child.cmdline())]


def test_a_failure_has_a_code_and_does_not_change_the_images_of_later_jobs(fragile: RunningService) -> None:
    body = {"num_inference_steps": 2, "seed": 1}
    before = fragile.bytes_of(fragile.run("txt2img", **body))
    for fields, code in (
        ({"model": "broken"}, "model_load_failed"),
        ({"loras": [{"name": "broken-lora"}]}, "lora_damaged"),
    ):
        job = fragile.wait(fragile.submit("txt2img", **(body | fields))["id"])
        assert (job["status"], job["error"]["code"]) == ("failed", code)
        assert job["error"]["retryable"] is False
        assert "Traceback" not in job["error"]["message"]
        assert job["attempts"] == 1
    assert fragile.bytes_of(fragile.run("txt2img", **body)) == before


def test_a_model_that_broke_is_shown_with_its_reason_and_its_requests_are_refused(fragile: RunningService) -> None:
    seen: list[tuple[httpx.Response, dict[str, Any]]] = []

    def is_refused() -> bool:
        answer = fragile.http.post("/v1/txt2img", json={"prompt": "a red circle", "model": "broken"})
        if answer.status_code == 202:
            fragile.wait(answer.json()["id"])  # the first one finds out
        model = fragile.http.get("/v1/models/broken").json()
        seen.append((answer, model))
        return answer.status_code == 503 and not model["available"]

    wait_until(is_refused)
    refused, model = seen[-1]
    assert model["unavailable_reason"].startswith("broken cannot be loaded: ")
    assert "/" not in model["unavailable_reason"]
    assert refused.json()["code"] == "model_unavailable"
    assert [(problem["field"], problem["message"]) for problem in refused.json()["errors"]] == [
        ("model", model["unavailable_reason"])
    ]
    assert fragile.http.get("/v1/models/shapes-sdxl").json()["available"] is True


def test_other_users_can_read_nothing_of_the_data(fragile: RunningService) -> None:
    fragile.run("txt2img", num_inference_steps=2)
    found = [fragile.data, *fragile.data.rglob("*")]
    assert len(found) > 5
    assert [path for path in found if path.stat().st_mode & 0o077] == []


def test_a_running_job_is_cancelled_within_a_step_and_a_finished_one_cannot_be(fragile: RunningService) -> None:
    job = fragile.submit("txt2img", num_inference_steps=200, seed=1)
    wait_until(lambda: fragile.fetch(job["id"])["progress"]["step"] > 1)
    assert fragile.http.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200
    ended = fragile.wait(job["id"], timeout_seconds=60)
    assert ended["status"] == "cancelled"
    assert ended["images"] == []
    done = fragile.run("txt2img", num_inference_steps=2)
    response = fragile.http.post(f"/v1/jobs/{done['id']}/cancel")
    assert (response.status_code, response.json()["code"]) == (409, "conflict")


def test_a_deadline_ends_a_job_that_is_still_running(fragile: RunningService) -> None:
    job = fragile.wait(fragile.submit("txt2img", num_inference_steps=200, deadline_seconds=1)["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "deadline_exceeded")


def test_the_api_answers_503_while_redis_is_unavailable_and_recovers_by_itself(fragile: RunningService) -> None:
    (redis,) = children(fragile, "redis-server")
    redis.suspend()
    try:
        response = fragile.http.post("/v1/txt2img", json={"prompt": "a red circle"})
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["code"] == "unavailable"
        assert fragile.http.get("/readyz").status_code == 503
        assert fragile.http.get("/healthz").status_code == 200
    finally:
        redis.resume()
    wait_until(lambda: fragile.http.get("/readyz").status_code == 200)
    assert fragile.run("txt2img", num_inference_steps=2)["status"] == "completed"


def test_hanging_up_leaves_a_job_to_the_next_start_and_sigterm_finishes_one(fragile: RunningService) -> None:
    """The last test: it ends the service that the others share."""
    job = start_long_job(fragile)
    fragile.process.send_signal(signal.SIGHUP)
    assert fragile.wait_for_end() == 0

    second = RunningService(fragile.data)
    done = second.wait(job)
    assert (done["status"], done["attempts"]) == ("completed", 1), "hanging up has spent an attempt"

    job = start_long_job(second)
    parent = psutil.Process(second.process.pid)
    pids = [parent.pid, *(child.pid for child in parent.children(recursive=True))]
    assert len(pids) >= 5
    assert second.stop() == 0
    wait_until(lambda: not [pid for pid in pids if is_alive(pid)])
    assert len(list((second.data / "storage" / "images" / job).rglob("0.png"))) == 1


def start_long_job(service: RunningService) -> str:
    """The id of a job that is running."""
    id: str = service.submit("txt2img", num_inference_steps=150, seed=1)["id"]
    wait_until(lambda: service.fetch(id)["progress"]["step"] > 1)
    return id
