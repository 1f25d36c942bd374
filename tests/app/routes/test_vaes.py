"""VAEs over HTTP: listed, in the schema of the models that they suit, and refused by name elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.settings import BUILT_IN_CATALOGUE, SharedSettings
from tests.support.built_in import built_in_rows

ROWS = f"""
[[vaes]]
id = "same"
family = "sdxl"
source = "{BUILT_IN_CATALOGUE.parent}/shapes-sdxl/vae"
"""


def test_vaes_are_listed_and_taken_by_the_models_that_they_suit(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "catalogue.toml").write_text(built_in_rows() + ROWS, encoding="utf-8")
    shared = SharedSettings(redis_url=redis_url, data=tmp_path, catalogue=tmp_path / "catalogue.toml")
    with TestClient(create_app(ApiSettings(shared=shared, anonymous_calls_per_minute=0))) as client:
        listed = client.get("/v1/vaes").json()["data"]
        sdxl, flux = (client.get(f"/v1/models/shapes-{name}").json() for name in ("sdxl", "flux"))
        accepted = client.post("/v1/txt2img", json={"prompt": "x", "vae": "same"})
        of_flux = client.post("/v1/txt2img", json={"prompt": "x", "vae": "same", "model": "shapes-flux"})
        unknown = client.post("/v1/txt2img", json={"prompt": "x", "vae": "gone"})

    assert listed == [{"id": "same", "family": "sdxl", "title": "", "models": ["shapes-sdxl"]}]
    assert (sdxl["vaes"], flux["vaes"]) == (["same"], [])
    assert sdxl["schemas"]["txt2img"]["properties"]["vae"]["anyOf"][0]["enum"] == ["same"]
    assert "vae" not in flux["schemas"]["txt2img"]["properties"]
    assert accepted.status_code == 202, accepted.text
    problem = of_flux.json()["errors"][0]
    message = "same works with sdxl models, and shapes-flux is of family flux"
    assert problem == {"field": "vae", "message": message, "allowed": []}
    assert unknown.json()["errors"] == [{"field": "vae", "message": "unknown VAE 'gone'", "allowed": ["same"]}]
