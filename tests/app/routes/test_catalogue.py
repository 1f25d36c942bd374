"""The catalogue over HTTP: lists of one shape, their entries, and the schemas of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.memory.planner import Capacity
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings

CATALOGUE = """
default_model = "sd"

[[models]]
id = "sd"
family = "sdxl"
source = "org/sd"

[[models]]
id = "schnell"
family = "flux"
source = "org/schnell"
refuses = ["guidance_scale"]

[[loras]]
id = "ink"
family = "sdxl"
source = "ink.safetensors"
title = "Ink"
trigger = "drawn in ink"

[[controlnets]]
id = "edges"
family = "sdxl"
source = "org/edges"
preprocessors = ["canny", "outline"]

[[controlnets]]
id = "outlines"
family = "flux"
source = "org/outlines"
preprocessors = ["outline"]
"""


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> SharedSettings:
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE, encoding="utf-8")
    return SharedSettings(redis_url=redis_url, data=tmp_path, catalogue=path)


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("models", ["sd", "schnell"]),
        ("loras", ["ink"]),
        ("controlnets", ["edges", "outlines"]),
        ("schedulers", list(SCHEDULERS)),
        ("preprocessors", ["canny", "outline"]),
        ("workers", []),
    ],
)
def test_every_list_has_one_shape(client: TestClient, path: str, ids: list[str]) -> None:
    body = client.get(f"/v1/{path}").json()

    assert body.keys() == {"object", "data", "has_more", "next_cursor"}
    assert (body["object"], body["has_more"], body["next_cursor"]) == ("list", False, None)
    assert [entry["id"] for entry in body["data"]] == ids


def test_a_model_shows_its_tasks_limits_and_defaults(client: TestClient) -> None:
    sd, schnell = client.get("/v1/models").json()["data"]

    assert (sd["object"], sd["family"]) == ("model", "sdxl")
    assert sd["tasks"] == ["txt2img", "img2img", "inpaint", "controlnet"]
    assert sd["defaults"]["num_inference_steps"] == 30
    assert sd["limits"] == {
        "min_side": 64,
        "max_side": 2048,
        "size_multiple": 8,
        "max_pixels": 2048 * 2048,
        "max_images": 8,
        "max_sequence_length": None,
    }
    assert "euler" in sd["schedulers"]
    assert (sd["loras"], sd["controlnets"]) == (["ink"], ["edges"])
    assert (schnell["loras"], schnell["controlnets"]) == ([], ["outlines"])
    assert "guidance_scale" not in schnell["defaults"]
    assert schnell["schedulers"][0] == "flow_euler"


def test_a_model_shows_the_workers_that_have_it_loaded(client: TestClient, queue: JobQueue) -> None:
    publish(queue.connection, WorkerReport(id="w1", state="idle", warm=["sd"]), ttl_seconds=60)
    publish(queue.connection, WorkerReport(id="w2", state="busy", warm=["sd", "schnell"]), ttl_seconds=60)

    assert client.get("/v1/models/sd").json()["warm_on"] == ["w1", "w2"]
    assert client.get("/v1/models/schnell").json()["warm_on"] == ["w2"]
    assert [worker["state"] for worker in client.get("/v1/workers").json()["data"]] == ["idle", "busy"]


def test_a_worker_is_shown_without_what_plans_are_made_from_unless_that_is_asked_for(
    client: TestClient, queue: JobQueue
) -> None:
    capacity = Capacity(budget_bytes=2**30, models={}, extras={})
    sizes = {
        "capacity": capacity,
        "placement": {"sd": {"unet": "device"}},
        "ready": ["sd"],
        "stage_seconds": {"load": 1},
    }
    publish(queue.connection, WorkerReport(id="w1", state="idle", warm=["sd"], **sizes), ttl_seconds=60)
    (short,), (long,) = (client.get(f"/v1/workers{query}").json()["data"] for query in ("", "?detail=plan"))
    assert short["warm"] == ["sd"]
    assert long.keys() - short.keys() == sizes.keys()
    assert long["capacity"]["budget_bytes"] == 2**30
    wrong = client.get("/v1/workers?detail=all")
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "detail")


def test_one_model_comes_with_the_schemas_of_its_tasks(client: TestClient) -> None:
    model = client.get("/v1/models/sd").json()

    assert list(model["schemas"]) == model["tasks"]
    assert model["schemas"]["inpaint"]["required"] == ["prompt", "image", "mask_image"]
    assert "mask_image" not in model["schemas"]["img2img"]["properties"]


def test_an_unknown_model_is_not_found(client: TestClient) -> None:
    response = client.get("/v1/models/none")

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_other_entries_say_what_they_work_with(client: TestClient) -> None:
    (ink,) = client.get("/v1/loras").json()["data"]
    edges = client.get("/v1/controlnets").json()["data"][0]
    schedulers = {entry["id"]: entry for entry in client.get("/v1/schedulers").json()["data"]}
    outline = client.get("/v1/preprocessors").json()["data"][1]

    shown = {name: ink[name] for name in ("id", "family", "title", "trigger", "ranks")}
    assert shown == {"id": "ink", "family": "sdxl", "title": "Ink", "trigger": "drawn in ink", "ranks": None}
    assert (edges["family"], edges["kind"], edges["preprocessors"]) == ("sdxl", "hint", ["canny", "outline"])
    assert schedulers["ddim"]["families"] == ["sdxl", "sd15", "pixart"]
    assert schedulers["edm_euler"]["families"] == ["sdxl"]
    assert schedulers["flow_euler"]["families"] == ["sd3", "flux", "chroma"]
    assert outline == {"id": "outline", "controlnets": ["edges", "outlines"]}


def test_the_built_in_catalogue_is_served(redis_url: str, tmp_path: Path) -> None:
    shared = SharedSettings(redis_url=redis_url, data=tmp_path)
    with TestClient(create_app(ApiSettings(shared=shared))) as client:
        models = client.get("/v1/models").json()["data"]

    assert {model["family"] for model in models} == {"sdxl", "sd3", "flux"}
