"""Models under the names that they have elsewhere: in every API, and never in a receipt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from tests.support.built_in import built_in_rows
from tests.support.scripted_worker import ScriptedWorker

PROMPT = "a red circle"


@pytest.fixture
def client(api_settings: ApiSettings, tmp_path: Path) -> Iterator[TestClient]:
    """A client of a service whose second model is known by two other names."""
    path = tmp_path / "catalogue.toml"
    named = 'id = "shapes-flux"\naliases = ["gpt-image-1", "black-forest-labs/flux-dev"]\n'
    path.write_text(built_in_rows().replace('id = "shapes-flux"\n', named, 1), encoding="utf-8")
    shared = api_settings.shared.model_copy(update={"catalogue": path})
    with TestClient(create_app(api_settings.model_copy(update={"shared": shared}))) as client:
        yield client


def test_an_alias_names_its_model_in_every_api(client: TestClient, worker: ScriptedWorker) -> None:
    replicate = "/replicate/v1/models/black-forest-labs/flux-dev"
    for path, body in (
        ("/v1/txt2img", {"model": "gpt-image-1", "prompt": PROMPT}),
        ("/v1/images/generations", {"model": "gpt-image-1", "prompt": PROMPT, "quality": "low"}),
        ("/hf/models/black-forest-labs/flux-dev", {"inputs": PROMPT}),
        (f"{replicate}/predictions", {"input": {"prompt": PROMPT}}),
        ("/replicate/v1/predictions", {"version": "black-forest-labs/flux-dev", "input": {"prompt": PROMPT}}),
    ):
        with worker.completing_next() as jobs:
            response = client.post(path, json=body)
        assert response.status_code in (200, 201, 202), response.text
        assert jobs[0].parameters.model == "shapes-flux", path

    assert client.get("/v1/models/gpt-image-1").json()["id"] == "shapes-flux"
    assert client.get(replicate).json()["name"] == "shapes-flux"
    listed = {model["id"]: model["aliases"] for model in client.get("/v1/models").json()["data"]}
    assert listed["shapes-flux"] == ["gpt-image-1", "black-forest-labs/flux-dev"]
    assert listed["shapes-sdxl"] == []


def test_what_the_model_of_an_alias_cannot_do_is_refused(client: TestClient) -> None:
    response = client.post("/v1/txt2img", json={"model": "gpt-image-1", "prompt": PROMPT, "clip_skip": 2})

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "clip_skip")
