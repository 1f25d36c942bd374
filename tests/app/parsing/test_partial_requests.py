"""Every reason at once: what is wrong with fields, and between them, in one answer."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from contracts.queue.client import JobQueue
from tests.support.requests import BODIES


def problems_of(client: TestClient, path: str, body: dict[str, Any]) -> list[tuple[str, str]]:
    response = client.post(path, json=body)
    assert response.status_code == 422, response.text
    return [(error["field"], error["message"]) for error in response.json()["errors"]]


def test_ranges_and_rules_between_fields_are_told_together(
    client: TestClient, queue: JobQueue, subtests: pytest.Subtests
) -> None:
    cases: list[tuple[str, dict[str, Any], list[str]]] = [
        (
            "txt2img",
            {"width": 68, "num_inference_steps": 500, "scheduler": "flow_euler", "foo": 1},
            ["foo", "num_inference_steps", "scheduler", "width"],
        ),
        ("txt2img", {"prompt": 5, "height": 68}, ["height", "prompt"]),
        (
            "txt2img",
            {"loras": [{"name": "none", "scale": 9}, {"name": 3}, "x", {"name": "none", "scale": 1}]},
            ["loras.0.name", "loras.0.scale", "loras.1.name", "loras.2", "loras.3.name"],
        ),
        ("img2img", {"image": None, "strength": 5, "width": 68}, ["image", "strength", "width"]),
        (
            "controlnet",
            {"controls": [{"controlnet": "none", "guidance_start": 0.9, "guidance_end": 9}], "width": 68},
            ["controls.0.controlnet", "controls.0.guidance_end", "width"],
        ),
        ("controlnet", {"controls": None, "scheduler": "none"}, ["controls", "scheduler"]),
        (
            "txt2img",
            {"width": 68, "num_images": 9, "webhook": {"url": "http://127.0.0.1/hook"}},
            ["num_images", "webhook.url", "width"],
        ),
    ]
    for task, changes, fields in cases:
        for is_general in [False, True]:
            with subtests.test(task=task, changes=changes, fields=fields, is_general=is_general):
                body = {name: value for name, value in (BODIES[task] | changes).items() if value is not None}
                path, more = ("/v1/jobs", {"task": task}) if is_general else (f"/v1/{task}", {})

                found = sorted({field for field, _ in problems_of(client, path, body | more)})

                assert found == fields
                assert queue.connection.keys("darkroom:job:*") == []


def test_a_rule_that_a_correction_may_keep_is_not_told(client: TestClient, subtests: pytest.Subtests) -> None:
    cases: list[tuple[str, dict[str, Any], list[str]]] = [
        # Whether these break a rule depends on what the wrong field was meant to be.
        ("txt2img", {"model": "shapes-flux", "negative_prompt": "n", "true_cfg_scale": 99}, ["true_cfg_scale"]),
        ("img2img", {"num_inference_steps": "50", "strength": 0.05}, ["num_inference_steps"]),
        ("txt2img", {"width": 5000, "height": 1024}, ["width"]),
        ("txt2img", {"model": 5, "clip_skip": 8}, ["model"]),
        ("controlnet", {"image": 5, "strength": 0.5}, ["image"]),
    ]
    for task, changes, fields in cases:
        with subtests.test(task=task, changes=changes, fields=fields):
            assert [field for field, _ in problems_of(client, f"/v1/{task}", BODIES[task] | changes)] == fields


def test_a_rule_that_no_correction_keeps_is_told_of_the_wrong_field_too(client: TestClient) -> None:
    body = BODIES["txt2img"] | {"model": "shapes-flux", "clip_skip": 99}
    found = problems_of(client, "/v1/txt2img", body)

    assert [field for field, _ in found] == ["clip_skip", "clip_skip"]
    assert found[0][1] == "must be at most 8, got 99"
    assert "is not supported by shapes-flux" in found[1][1]


def test_a_dry_run_and_a_rerun_tell_every_reason_too(client: TestClient) -> None:
    wrong = {"width": 68, "num_images": 9}
    id = client.post("/v1/txt2img", json=BODIES["txt2img"]).json()["id"]

    for path, body in (
        ("/v1/plan", {"task": "txt2img", "prompt": "a", **wrong}),
        (f"/v1/jobs/{id}/rerun", wrong),
    ):
        assert sorted(field for field, _ in problems_of(client, path, body)) == ["num_images", "width"]


def test_openai_clients_are_told_every_reason_in_their_own_names(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    cases: list[tuple[dict[str, Any], str, list[str]]] = [
        ({"n": 9, "size": "68x64"}, "n", ["must be at most 8, got 9", "size: must be a multiple of 8, got 68"]),
        ({"quality": "low", "num_inference_steps": 3, "size": "68x64"}, "quality", ["size: must be a multiple"]),
        ({"size": "8x68"}, "size", ["must be at least 64, got 8", "must be a multiple of 8, got 68"]),
    ]
    for body, param, words in cases:
        with subtests.test(body=body, param=param, words=words):
            error = client.post("/v1/images/generations", json={"prompt": "a", **body}).json()["error"]

            assert error["param"] == param
            assert [word for word in words if word not in error["message"]] == []


def test_more_reasons_than_are_shown_are_counted(client: TestClient) -> None:
    body = {"prompt": "a", "width": 68, **{f"x{number}": 1 for number in range(60)}}
    response = client.post("/v1/txt2img", json=body)

    assert len(response.json()["errors"]) == 50
    assert "60 problems" in response.json()["detail"]


def test_what_is_wrong_with_images_is_told_with_the_other_reasons(client: TestClient) -> None:
    body = {
        "prompt": "x",
        "strength": 7,
        "guidance_scale": 1,
        "negative_prompt": "y",
        "image": "upload:none",
        "mask_image": "bm90IGFuIGltYWdl",
    }
    response = client.post("/v1/inpaint", json=body)

    reasons = {problem["field"]: problem["message"] for problem in response.json()["errors"]}
    assert (response.status_code, set(reasons)) == (422, {"strength", "negative_prompt", "image", "mask_image"})
    assert "does not exist" in reasons["image"]
    assert "is not an image" in reasons["mask_image"]
    assert client.get("/v1/jobs").json()["data"] == []
