"""Models that are prompted by a class over HTTP: what they say of their classes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from contracts.queue.client import JobQueue
from contracts.requests.any_parameters import require_diffusion
from contracts.settings import SharedSettings
from tests.support.class_checkpoints import write_checkpoint
from tests.support.small_catalogue import SMALL_CATALOGUE

_ROWS = """
[[models]]
id = "dit"
family = "dit"
source = "dit"

[[models]]
id = "far"
family = "dit"
source = "facebook/DiT-XL-2-256"
"""


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> SharedSettings:
    write_checkpoint(tmp_path / "dit", id2label={"0": "tench, Tinca tinca", "207": "golden retriever"})
    path = tmp_path / "catalogue.toml"
    path.write_text(SMALL_CATALOGUE + _ROWS, encoding="utf-8")
    return SharedSettings(redis_url=redis_url, data=tmp_path, catalogue=path)


def problems_of(client: TestClient, body: dict[str, Any]) -> dict[str, str]:
    """Field -> message of a request that is refused."""
    answer = client.post("/v1/txt2img", json=body)
    assert answer.status_code == 422, answer.text
    return {problem["field"]: problem["message"] for problem in answer.json()["errors"]}


def test_a_class_takes_the_place_of_the_prompt(
    client: TestClient, queue: JobQueue, subtests: pytest.Subtests
) -> None:
    model = client.get("/v1/models/dit").json()
    assert model["classes"] == {"0": "tench, Tinca tinca", "207": "golden retriever"}
    assert client.get("/v1/models/far").json()["classes"] == {}
    assert client.get("/v1/models/sd").json()["classes"] is None
    schema = model["schemas"]["txt2img"]
    assert schema["required"] == ["class_label"]
    assert [branch["type"] for branch in schema["properties"]["class_label"]["anyOf"]] == ["integer", "string"]
    assert schema["properties"].keys().isdisjoint({"prompt", "negative_prompt", "long_prompt", "prompt_syntax"})
    assert schema["properties"]["width"]["anyOf"][0]["enum"] == [512]
    assert "class_label" not in client.get("/v1/models/sd").json()["schemas"]["txt2img"]["properties"]

    for label in (0, 999, "Tinca tinca", "golden retriever"):
        job = client.post("/v1/txt2img", json={"model": "dit", "class_label": label, "seed": 7}).json()
        stored = require_diffusion(queue.fetch(job["id"]).parameters)
        assert (stored.class_label, stored.prompt, stored.width) == (label, None, 512)
        assert stored.record_version == 3
        again = client.post(f"/v1/jobs/{job['id']}/rerun", json={}).json()
        assert require_diffusion(queue.fetch(again["id"]).parameters) == stored
    # Where the labels are on a worker's machine only, that says whether there is such a class.
    assert client.post("/v1/txt2img", json={"model": "far", "class_label": "any"}).status_code == 202

    known = {"model": "dit", "class_label": 0}
    for body, field, message in (
        (
            {"model": "dit"},
            "class_label",
            "is required: dit makes images of classes",
        ),
        (known | {"class_label": 1000}, "class_label", "must be a number from 0 to 999, or a name"),
        (known | {"class_label": True}, "class_label", "must be a number from 0 to 999, or a name"),
        (known | {"class_label": "Tench"}, "class_label", "or one of the names in the classes of the model"),
        (known | {"prompt": "a tench"}, "prompt", "has no effect on dit; remove it"),
        (known | {"prompt_syntax": "a1111"}, "prompt_syntax", "has no effect on dit; remove it"),
        (known | {"long_prompt": "chunk"}, "long_prompt", "has no effect on dit; remove it"),
        (
            known | {"negative_prompt": "a"},
            "negative_prompt",
            "is not supported by dit (dit) in txt2img",
        ),
        (known | {"width": 256}, "width", "must be 512, since dit makes images of one size only, got 256"),
        (known | {"scheduler": "euler"}, "scheduler", "starts from scaled noise"),
        (
            {"model": "sd", "prompt": "a", "class_label": 0},
            "class_label",
            "is not supported by sd",
        ),
        ({"model": "sd"}, "prompt", "is required"),
    ):
        with subtests.test(field, body=body):
            found = problems_of(client, body)
            assert list(found) == [field]
            assert message in found[field]
