"""The lists over HTTP: of one shape, and what their entries say."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from contracts.catalogue.families import FAMILIES
from contracts.catalogue.rows.preprocessors import PREPROCESSORS
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.settings import SharedSettings
from tests.support.small_catalogue import SMALL_CATALOGUE


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> SharedSettings:
    path = tmp_path / "catalogue.toml"
    path.write_text(SMALL_CATALOGUE, encoding="utf-8")
    return SharedSettings(redis_url=redis_url, data=tmp_path, catalogue=path)


def test_every_list_has_one_shape(client: TestClient, subtests: pytest.Subtests) -> None:
    for path, ids in [
        ("models", ["sd", "schnell"]),
        ("loras", ["ink"]),
        ("controlnets", ["edges", "outlines"]),
        ("schedulers", list(SCHEDULERS)),
        ("preprocessors", list(PREPROCESSORS)),
        ("workers", []),
    ]:
        with subtests.test(path=path, ids=ids):
            body = client.get(f"/v1/{path}").json()

            assert body.keys() == {"object", "data", "has_more", "next_cursor"}
            assert (body["object"], body["has_more"], body["next_cursor"]) == ("list", False, None)
            assert [entry["id"] for entry in body["data"]] == ids


def test_other_entries_say_what_they_work_with(client: TestClient) -> None:
    (ink,) = client.get("/v1/loras").json()["data"]
    edges = client.get("/v1/controlnets").json()["data"][0]
    schedulers = {entry["id"]: entry for entry in client.get("/v1/schedulers").json()["data"]}
    lineart = client.get("/v1/preprocessors").json()["data"][1]

    shown = {name: ink[name] for name in ("id", "family", "title", "trigger", "ranks")}
    assert shown == {"id": "ink", "family": "sdxl", "title": "Ink", "trigger": "drawn in ink", "ranks": None}
    assert (edges["family"], edges["kind"], edges["preprocessors"]) == ("sdxl", "hint", ["canny", "lineart"])
    diffusion = [id for id, row in FAMILIES.items() if row.kind == "diffusion"]
    assert schedulers["ddim"]["families"] == diffusion
    assert schedulers["euler"]["families"] == [id for id in diffusion if id != "dit"]
    assert schedulers["edm_euler"]["families"] == ["sdxl"]
    assert schedulers["flow_euler"]["families"] == [id for id, row in FAMILIES.items() if row.kind == "flow"]
    assert (lineart["id"], lineart["controlnets"]) == ("lineart", ["edges", "outlines"])
