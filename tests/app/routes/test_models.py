"""The models over HTTP: their entries, and the schemas of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from tests.support.gguf_headers import entry, header
from tests.support.small_catalogue import SMALL_CATALOGUE

_PACKED = """
[[models]]
id = "packed"
family = "flux"
source = "flux.gguf"
config = "org/flux"
"""


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> SharedSettings:
    path = tmp_path / "catalogue.toml"
    path.write_text(SMALL_CATALOGUE + _PACKED, encoding="utf-8")
    (tmp_path / "flux.gguf").write_bytes(
        header([entry("img_in.weight", [64, 8], 8, 0)]) + bytes(64 // 32 * 8 * 34)
    )
    return SharedSettings(redis_url=redis_url, data=tmp_path, catalogue=path)


def test_a_model_shows_its_tasks_limits_and_defaults(client: TestClient) -> None:
    sd, schnell, packed = client.get("/v1/models").json()["data"]

    assert [model["quantization"] for model in (sd, schnell, packed)] == [None, None, "gguf-q8_0"]
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
    assert sd["lora_kinds"] == ["lora", "dora", "loha", "lokr", "full", "oft", "ia3", "hypernetwork"]
    assert "guidance_scale" not in schnell["defaults"]
    assert schnell["schedulers"][0] == "flow_euler"


def test_a_model_shows_the_workers_that_have_it_loaded(client: TestClient, queue: JobQueue) -> None:
    publish(queue.connection, WorkerReport(id="w1", state="idle", warm=["sd"]), ttl_seconds=60)
    publish(queue.connection, WorkerReport(id="w2", state="busy", warm=["sd", "schnell"]), ttl_seconds=60)

    assert client.get("/v1/models/sd").json()["warm_on"] == ["w1", "w2"]
    assert client.get("/v1/models/schnell").json()["warm_on"] == ["w2"]
    assert [worker["state"] for worker in client.get("/v1/workers").json()["data"]] == ["idle", "busy"]


def test_one_model_comes_with_the_schemas_of_its_tasks(client: TestClient) -> None:
    model = client.get("/v1/models/sd").json()

    assert list(model["schemas"]) == model["tasks"]
    assert model["schemas"]["inpaint"]["required"] == ["prompt", "image", "mask_image"]
    assert "mask_image" not in model["schemas"]["img2img"]["properties"]


def test_a_model_says_what_it_can_be_trained_for_and_with_which_fields(client: TestClient) -> None:
    sd, schnell, packed = (client.get(f"/v1/models/{id}").json() for id in ("sd", "schnell", "packed"))

    assert [model["trainings"] for model in (sd, schnell, packed)] == [
        ["lora", "textual_inversion", "controlnet"],
        ["lora", "controlnet"],
        [],
    ]
    assert packed["training_schemas"] == {}
    lora, inversion, controlnet = (sd["training_schemas"][kind] for kind in sd["trainings"])
    assert {"rank", "snr_gamma", "class_prompt"} <= lora["properties"].keys()
    assert "snr_gamma" not in schnell["training_schemas"]["lora"]["properties"]
    assert inversion["properties"].keys() - lora["properties"].keys() == {"vectors", "initial_text"}
    assert controlnet["properties"]["images"]["maxItems"] == 1000
    examples = [schema["$defs"]["TrainingExample"]["required"] for schema in (lora, controlnet)]
    assert examples == [["image"], ["image", "conditioning_image"]]
    assert [schema["properties"]["learning_rate"]["default"] for schema in (lora, inversion)] == [1e-4, 1e-3]


def test_an_unknown_model_is_not_found(client: TestClient) -> None:
    response = client.get("/v1/models/none")

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_the_built_in_catalogue_is_served(redis_url: str, tmp_path: Path) -> None:
    shared = SharedSettings(redis_url=redis_url, data=tmp_path)
    with TestClient(create_app(ApiSettings(shared=shared))) as client:
        models = client.get("/v1/models").json()["data"]

    assert {model["family"] for model in models} == {"sdxl", "sd3", "flux", "sd15"}


def test_a_packed_model_cannot_be_trained_on(client: TestClient) -> None:
    request = {"name": "mine", "model": "packed", "instance_prompt": "x", "images": [{"image": "https://x.org/a"}]}
    (problem,) = client.post("/v1/trainings", json=request).json()["errors"]
    assert problem["field"] == "model"
    assert "from weights that are not quantized" in problem["message"]
    assert "packed" not in problem["allowed"]
