"""A worker that is killed in the middle of a training: another goes on from the checkpoint, to the same file."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tests.support.running_service import RunningService
from tests.support.waiting import wait_until

STEPS, CHECKPOINT_STEPS = 60, 5
#: What is trained -> its own settings.
KINDS: dict[str, dict[str, Any]] = {"lora": {"rank": 4}, "controlnet": {}}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    """With two workers."""
    environment = {"DARKROOM_QUEUE_LEASE_SECONDS": "4"}
    running = RunningService(tmp_path / "data", "--workers", "2", environment=environment)
    yield running
    running.stop()


def train(service: RunningService, name: str, kind: str) -> str:
    """The id of a training of this name."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for colour in ("red", "blue"):
            image = io.BytesIO()
            Image.new("RGB", (64, 64), colour).save(image, "PNG")
            file.writestr(f"{colour}.png", image.getvalue())
            file.writestr(f"{colour}.txt", f"a {colour} thing")
            if kind == "controlnet":
                file.writestr(f"{colour}.control.png", image.getvalue())
    fields = {
        "name": name, "model": "shapes-sdxl", "kind": kind, "steps": STEPS, "learning_rate": 0.001, "seed": 3,
        "checkpoint_every_steps": CHECKPOINT_STEPS, **KINDS[kind],
    }  # fmt: skip
    files = {"file": ("images.zip", packed.getvalue(), "application/zip")}
    response = service.http.post("/v1/trainings", files=files, data={"request": json.dumps(fields)})
    assert response.status_code == 202, response.text
    id: str = response.json()["id"]
    return id


def result_of(job: dict[str, Any], kind: str) -> str:
    assert job["status"] == "completed", job
    sha256: str = job["receipt"]["training"][f"{kind}s"][-1]["sha256"]
    return sha256


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_workers_training_goes_on_elsewhere_to_the_same_file(service: RunningService, kind: str) -> None:
    whole = result_of(service.wait(train(service, "whole", kind), 180), kind)
    id = train(service, "killed", kind)
    killed_after = random.randrange(1, STEPS - 2 * CHECKPOINT_STEPS)  # any step: the file is the same
    wait_until(lambda: (service.fetch(id)["progress"]["step"] or 0) >= killed_after, 240)
    workers = service.http.get("/v1/workers").json()["data"]
    (killed,) = [worker for worker in workers if id in worker["current_jobs"]]
    reached = service.fetch(id)["progress"]["step"]
    psutil.Process(killed["pid"]).kill()
    wait_until(lambda: service.fetch(id)["attempts"] == 2, 240)
    resumed: list[int] = []

    def goes_on() -> bool:
        job = service.fetch(id)
        resumed.append(job["progress"]["step"] or 0)
        return bool(job["status"] == "completed")

    wait_until(goes_on, 120)
    ended = service.fetch(id)
    first = next(step for step in resumed if step)
    print(f"{kind}: killed after step {reached} or later; the first step seen on the other worker was {first}")
    assert result_of(ended, kind) == whole
    assert ended["receipt"]["worker"] != killed["id"]
    assert first >= reached - CHECKPOINT_STEPS
