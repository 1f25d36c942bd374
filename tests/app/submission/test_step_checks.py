"""The check of a single step over HTTP: what is stored, and what is refused before anything is queued."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import torch
from fastapi.testclient import TestClient
from safetensors.torch import save

from contracts.queue.client import JobQueue
from contracts.storage import Storage
from tests.support.requests import submit
from tests.support.scripted_worker import ScriptedWorker


def encoded(*steps: int, shape: tuple[int, ...] = (1, 4, 8, 8), dtype: torch.dtype = torch.float32) -> str:
    tensors = {f"step.{step:03}": torch.zeros(shape, dtype=dtype) for step in steps}
    return base64.b64encode(save(tensors)).decode()


def test_its_latents_are_an_input_of_the_job(
    client: TestClient, queue: JobQueue, storage: Storage, worker: ScriptedWorker
) -> None:
    latents = encoded(2)
    job = submit(client, num_inference_steps=4, check_step={"step": 3, "latents": latents})
    parameters = queue.fetch(job["id"]).parameters
    (key,) = storage.find("inputs/")
    assert parameters.check_step.latents == key
    assert parameters.inputs == [key]
    assert key.startswith(f"inputs/{hashlib.sha256(base64.b64decode(latents)).hexdigest()}.")
    assert parameters.expected_steps == 2  # what it costs
    worker.complete(worker.claim())
    again = client.post(f"/v1/jobs/{job['id']}/rerun")
    assert (again.status_code, "only checked one step" in again.json()["detail"]) == (409, True)
    assert client.get(f"/v1/jobs/{job['id']}/latents").status_code == 404

    first = submit(client, num_inference_steps=4, check_step={"step": 1})
    assert queue.fetch(first["id"]).parameters.check_step.latents is None


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({}, {"step": 3}, "check_step.latents", "step 3 is computed from the tensors step.002"),
    ({}, {"step": 3, "latents": encoded(1, 2)}, "check_step.latents", "exactly the tensors step.002"),
    ({}, {"step": 3, "latents": encoded(2, shape=(2, 4, 8, 8))}, "check_step.latents", "latents of 1 images"),
    ({}, {"step": 3, "latents": encoded(2, dtype=torch.float64)}, "check_step.latents", "got F64"),
    ({}, {"step": 3, "latents": "AAAA" * 20}, "check_step.latents", "is not a safetensors file"),
    ({}, {"step": 3, "latents": "upload:x"}, "check_step.latents", "is not valid base64"),
    ({}, {"step": 1, "latents": encoded(1)}, "check_step.latents", "computed from noise"),
    ({}, {"step": 9}, "check_step.step", "fewer steps than 9"),
    ({"scheduler": "unipc"}, {"step": 3}, "check_step", "with scheduler unipc a step depends on all"),
    ({"keep_latents": True}, {"step": 1}, "keep_latents", "has no effect with check_step"),
    (
        {"scheduler": "dpmpp_2m"},
        {"step": 4, "latents": encoded(3)},
        "check_step.latents",
        "step.001, step.002",
    ),
]


def test_what_cannot_be_checked_is_refused_by_name(client: TestClient, storage: Storage) -> None:
    for fields, check, field, told in REFUSED:
        problem = client.post(
            "/v1/txt2img", json={"prompt": "x", "num_inference_steps": 4, "check_step": check} | fields
        )
        assert problem.status_code == 422, problem.text
        errors = problem.json()["errors"]
        assert [error["field"] for error in errors] == [field]
        assert told in errors[0]["message"]
    assert storage.find("inputs/") == []


def test_apis_that_answer_with_images_refuse_it(client: TestClient) -> None:
    check = {"check_step": {"step": 1}}
    for path, body in (
        ("/v1/images/generations", {"prompt": "x", **check}),
        ("/hf/models/shapes-sdxl", {"inputs": "x", "parameters": check}),
        ("/replicate/v1/models/darkroom/shapes-sdxl/predictions", {"input": {"prompt": "x", **check}}),
    ):
        problem = client.post(path, json=body)
        assert problem.status_code in (400, 422), (path, problem.status_code, problem.text)
        assert "makes no image" in problem.text
