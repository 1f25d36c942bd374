"""ControlNets over HTTP: uploaded, listed, used by their owner alone, and removed; no worker runs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.main import create_app
from app.settings import ApiSettings
from contracts.queue.client import JobQueue
from contracts.settings import BUILT_IN_CATALOGUE, SharedSettings
from tests.support.images import encode_image

MODELS = BUILT_IN_CATALOGUE.parent
FILE = MODELS / "controlnets" / "shapes-sdxl-silhouette" / "diffusion_pytorch_model.safetensors"
BYTES = {"Content-Type": "application/octet-stream"}


def upload(client: TestClient, path: Path = FILE, name: str = "outline") -> Any:
    return client.post("/v1/controlnets", params={"name": name}, content=path.read_bytes(), headers=BYTES)


def request(name: str, **fields: Any) -> dict[str, Any]:
    image = base64.b64encode(encode_image(Image.new("RGB", (64, 64)))).decode()
    return {
        "prompt": "a circle",
        "model": "shapes-sdxl",
        "controls": [{"controlnet": name, "image": image}],
        **fields,
    }


@pytest.fixture
def uploaded(client: TestClient) -> Iterator[dict[str, Any]]:
    answer = upload(client)
    assert answer.status_code == 201, answer.text
    yield answer.json()
    client.delete("/v1/controlnets/outline")


def test_an_uploaded_controlnet_is_listed_and_used_until_it_is_removed(
    client: TestClient, queue: JobQueue, uploaded: dict[str, Any]
) -> None:
    assert (uploaded["family"], uploaded["models"]) == ("sdxl", ["shapes-sdxl"])
    listed = {row["id"]: row for row in client.get("/v1/controlnets").json()["data"]}
    assert listed["outline"] == uploaded
    assert listed["shapes-sdxl-canny"]["sha256"] is None
    assert "outline" in client.get("/v1/models/shapes-sdxl").json()["controlnets"]
    assert upload(client).status_code == 200
    assert upload(client, name="shapes-sdxl-canny").status_code == 409

    answer = client.post("/v1/controlnet", json=request("outline"))
    assert answer.status_code == 202, answer.text
    job = queue.fetch(answer.json()["id"]).parameters
    (control,) = job.controls
    assert (control.sha256, control.values) == (uploaded["sha256"], 1_592_560)
    assert job.needs == ["shapes-sdxl"]
    assert control.key in job.inputs
    again = client.post(f"/v1/jobs/{answer.json()['id']}/rerun", json={"seed": 5})
    assert queue.fetch(again.json()["id"]).parameters.controls == (control,)

    assert client.delete("/v1/controlnets/outline").status_code == 204
    refused = client.post("/v1/controlnet", json=request("outline"))
    assert "unknown ControlNet" in refused.json()["errors"][0]["message"]
    assert client.delete("/v1/controlnets/shapes-sdxl-canny").status_code == 409


def test_a_controlnet_may_be_larger_than_a_lora_up_to_a_limit_of_its_own(settings: SharedSettings) -> None:
    size_bytes = FILE.stat().st_size
    limits = ApiSettings(shared=settings, max_lora_bytes=1024, max_controlnet_bytes=size_bytes)
    with TestClient(create_app(limits)) as client:
        refused = client.post("/v1/loras?name=a", content=FILE.read_bytes(), headers=BYTES)
        assert (refused.status_code, upload(client).status_code) == (413, 201)
        assert client.post("/v1/controlnets", content=bytes(size_bytes + 1), headers=BYTES).status_code == 413


def test_another_file_is_refused_and_the_answer_says_what_it_is(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    for path, words in [
        ("shapes-sdxl/unet/diffusion_pytorch_model.safetensors", "not the ControlNet of a UNet"),
        ("controlnets/shapes-sd3-canny/diffusion_pytorch_model.safetensors", "not the ControlNet of a UNet"),
        ("loras/bad/truncated.safetensors", "the file"),
    ]:
        with subtests.test(path=path, words=words):
            answer = upload(client, MODELS / path)
            assert answer.status_code == 422
            assert words in answer.text
