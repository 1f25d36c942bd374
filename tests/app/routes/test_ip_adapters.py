"""IP-Adapters over HTTP: listed, in a model's schema, and in a request whose images are stored for its job."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.inputs.decoder import ImageDecoder
from app.main import create_app
from app.settings import ApiSettings
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from tests.support.built_in import built_in_rows
from tests.support.images import encode_image
from tests.support.ip_adapter_headers import PLUS, write_file

BUILT_IN, REDUX = "shapes-sdxl-subject", "shapes-flux-redux"
ROWS = """
[[ip_adapters]]
id = "look"
family = "sdxl"
source = "look.safetensors"
image_encoder = "clip"
"""


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> SharedSettings:
    (tmp_path / "catalogue.toml").write_text(built_in_rows() + ROWS, encoding="utf-8")
    write_file(tmp_path / "look.safetensors", PLUS)
    return SharedSettings(redis_url=redis_url, data=tmp_path, catalogue=tmp_path / "catalogue.toml")


@pytest.fixture
def client(api_settings: ApiSettings, shared_decoder: ImageDecoder | None) -> TestClient:
    return TestClient(create_app(api_settings, decoder=shared_decoder))


def _image(mode: str = "RGB", size: tuple[int, int] = (90, 60)) -> str:
    return base64.b64encode(encode_image(Image.new(mode, size, "white"))).decode()


def test_they_are_listed_and_in_the_schema_of_their_models(client: TestClient) -> None:
    with client:
        built_in, redux, listed = client.get("/v1/ip-adapters").json()["data"]
        sdxl, flux, sd3 = (client.get(f"/v1/models/shapes-{name}").json() for name in ("sdxl", "flux", "sd3"))
    assert {name: listed[name] for name in ("id", "family", "kind", "tokens")} == {
        "id": "look", "family": "sdxl", "kind": "plus", "tokens": 16,
    }  # fmt: skip
    assert (built_in["id"], built_in["kind"], built_in["image_encoder"]) == (BUILT_IN, "plain", "shapes-clip")
    assert (redux["id"], redux["kind"], redux["image_encoder"]) == (REDUX, "redux", "shapes-siglip")
    assert sdxl["ip_adapters"] == [BUILT_IN, "look"]
    assert sdxl["schemas"]["txt2img"]["$defs"]["IpAdapter"]["properties"]["name"]["enum"] == [BUILT_IN, "look"]
    assert flux["ip_adapters"] == [REDUX]
    assert sd3["ip_adapters"] == []
    assert "ip_adapters" not in sd3["schemas"]["txt2img"]["properties"]


def test_the_images_of_a_request_are_stored_and_the_job_names_their_keys(
    client: TestClient, queue: JobQueue
) -> None:
    entry = {"name": "look", "images": [_image(), _image()], "scale": 0.5, "mask": _image("L", (32, 32))}
    with client:
        answer = client.post("/v1/txt2img", json={"prompt": "a circle", "ip_adapters": [entry]})
        assert answer.status_code == 202, answer.text
        (stored,) = queue.fetch(answer.json()["id"]).parameters.ip_adapters
        rerun = client.post(f"/v1/jobs/{answer.json()['id']}/rerun", json={"seed": 3})
        assert rerun.status_code == 202, rerun.text
        again = queue.fetch(rerun.json()["id"]).parameters
    assert stored.mask is not None
    assert len({*stored.images, stored.mask}) == 2  # the two images are the same
    assert all(key.startswith("inputs/") for key in (*stored.images, stored.mask))
    assert again.ip_adapters == (stored,)


def test_what_is_wrong_is_told_by_its_field_before_anything_is_queued(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"images": ["upload:nothing"]}, "ip_adapters.0.images.0"),
        ({"images": [_image(), "AAAA"]}, "ip_adapters.0.images.1"),
        ({"images": []}, "ip_adapters.0.images"),
        ({"images": [_image()], "mask": "upload:nothing"}, "ip_adapters.0.mask"),
        ({"images": [_image()], "weight": 1}, "ip_adapters.0.weight"),
        ({"images": [_image()], "name": "other"}, "ip_adapters.0.name"),
    ]
    with client:
        for entry, field in cases:
            with subtests.test(field=field):
                body = {"prompt": "a circle", "ip_adapters": [{"name": "look", **entry}]}
                answer = client.post("/v1/txt2img", json=body)
                assert answer.status_code in (415, 422), answer.text
                assert [problem["field"] for problem in answer.json()["errors"]] == [field]
