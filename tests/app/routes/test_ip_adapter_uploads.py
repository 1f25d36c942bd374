"""IP-Adapters that clients upload: described, compared with models and encoders, used by jobs, and removed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.inputs.decoder import ImageDecoder
from app.main import create_app
from app.settings import ApiSettings
from contracts.queue.client import JobQueue
from contracts.settings import BUILT_IN_CATALOGUE, SharedSettings
from contracts.storage import Storage
from contracts.weights.formats.safetensors import read_header
from tests.support.images import data_url, encode_image
from tests.support.ip_adapter_headers import Shapes, write_file

MODELS = BUILT_IN_CATALOGUE.parent
IMAGE = data_url(encode_image(Image.new("RGB", (64, 64), "white")))


def _shapes(layers: int | None = None, width: int | None = None, image_width: int = 24) -> Shapes:
    """An IP-Adapter for `shapes-sdxl`, or for a model of other layers or widths."""
    unet = read_header(MODELS / "shapes-sdxl/unet/diffusion_pytorch_model.safetensors").tensors
    keys = [tensor.shape for name, tensor in unet.items() if name.endswith(".attn2.to_k.weight")][:layers]
    own = width or keys[0][1]
    found: Shapes = {
        "image_proj.proj.weight": (4 * own, image_width), "image_proj.proj.bias": (4 * own,),
        "image_proj.norm.weight": (own,), "image_proj.norm.bias": (own,),
    }  # fmt: skip
    for index, shape in enumerate(keys):
        found |= {f"ip_adapter.{2 * index + 1}.to_{half}_ip.weight": (shape[0], own) for half in "kv"}
    return found


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> SharedSettings:
    """A catalogue without IP-Adapters, whose operator offers an image encoder for those of clients."""
    for folder in (*MODELS.glob("shapes-*"), MODELS / "controlnets", MODELS / "loras"):
        (tmp_path / folder.name).symlink_to(folder)
    encoder = tmp_path / "encoders" / "clip-small"
    encoder.mkdir(parents=True)
    config = {"model_type": "clip_vision_model", "architectures": ["CLIPVisionModelWithProjection"]}
    (encoder / "config.json").write_text(json.dumps({**config, "projection_dim": 24, "hidden_size": 16}))
    write_file(encoder / "model.safetensors", {"x": (1,)})
    siglip = tmp_path / "encoders" / "siglip-small"
    siglip.mkdir()
    (siglip / "config.json").write_text(json.dumps({"model_type": "siglip_vision_model", "hidden_size": 24}))
    write_file(siglip / "model.safetensors", {"x": (1,)})
    text = BUILT_IN_CATALOGUE.read_text(encoding="utf-8").partition("\n[[ip_adapters]]")[0]
    encoders = 'image_encoders = ["encoders/clip-small", "encoders/siglip-small"]'
    (tmp_path / "catalogue.toml").write_text(f"{encoders}\n{text}", encoding="utf-8")
    shutil.copy(BUILT_IN_CATALOGUE, tmp_path / "unused.toml")
    return SharedSettings(redis_url=redis_url, data=tmp_path, catalogue=tmp_path / "catalogue.toml")


@pytest.fixture
def client(api_settings: ApiSettings, shared_decoder: ImageDecoder | None) -> TestClient:
    return TestClient(create_app(api_settings, decoder=shared_decoder))


def _add(client: TestClient, folder: Path, shapes: Shapes, name: str = "look", **fields: Any) -> Any:
    data = write_file(folder / "sent.safetensors", shapes).read_bytes()
    files = {"file": ("a.safetensors", data)}
    return client.post("/v1/ip-adapters", files=files, data={"name": name, **fields})


def test_an_upload_is_described_listed_used_and_removed(
    client: TestClient, queue: JobQueue, storage: Storage, tmp_path: Path
) -> None:
    with client:
        added = _add(client, tmp_path, _shapes())
        assert added.status_code == 201, added.text
        shown = added.json()
        assert {name: shown[name] for name in ("family", "models", "kind", "tokens", "image_encoder")} == {
            "family": "sdxl", "models": ["shapes-sdxl"], "kind": "plain", "tokens": 4,
            "image_encoder": "clip-small",
        }  # fmt: skip
        assert client.get("/v1/ip-adapters").json()["data"] == [shown]
        body = {"prompt": "x", "ip_adapters": [{"name": "look", "images": [IMAGE]}]}
        accepted = client.post("/v1/txt2img", json=body)
        assert accepted.status_code == 202, accepted.text
        (one,) = queue.fetch(accepted.json()["id"]).parameters.ip_adapters
        assert (one.sha256, one.image_encoder) == (shown["sha256"], "clip-small")
        assert one.values == 2 * 4 * sum(
            shape[0] for name, shape in _shapes().items() if name.startswith("ip_adapter.")
        )
        plan = client.post("/v1/plan", json={"task": "txt2img", **body})
        assert plan.status_code == 200, plan.text
        assert client.post(f"/v1/jobs/{accepted.json()['id']}/rerun").status_code == 202
        assert client.delete("/v1/ip-adapters/look").status_code == 204
        assert client.post("/v1/txt2img", json=body).status_code == 422
        assert one.key is not None
        assert storage.exists(one.key)


def _redux(width: int) -> Shapes:
    return {
        "redux_up.weight": (3 * width, 24), "redux_up.bias": (3 * width,),
        "redux_down.weight": (width, 3 * width), "redux_down.bias": (width,),
    }  # fmt: skip


def test_redux_is_for_the_flux_models_of_its_width_and_the_siglip_encoder(
    client: TestClient, tmp_path: Path
) -> None:
    with client:
        added = _add(client, tmp_path, _redux(128))
        assert added.status_code == 201, added.text
        shown = added.json()
        assert {name: shown[name] for name in ("family", "models", "kind", "tokens", "image_encoder")} == {
            "family": "flux", "models": ["shapes-flux", "shapes-kontext"], "kind": "redux", "tokens": None,
            "image_encoder": "siglip-small",
        }  # fmt: skip
        body = {"prompt": "x", "model": "shapes-flux", "ip_adapters": [{"name": "look", "images": [IMAGE]}]}
        accepted = client.post("/v1/txt2img", json=body)
        assert accepted.status_code == 202, accepted.text


def test_one_that_no_model_or_encoder_here_fits_is_refused_with_the_widths(
    client: TestClient, storage: Storage, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    cases: list[tuple[Shapes, dict[str, str], str]] = [
        (_redux(64), {}, "its tokens have 64 values, and the layers of shapes-flux read 128"),
        (
            _shapes(image_width=1024),
            {},
            "1024 values of an image, and no image encoder here gives that (clip-sm",
        ),
        (_shapes(layers=3), {}, "it has 3 cross-attention layers, and shapes-sdxl has"),
        (_shapes(width=768), {}, "its tokens have 768 values, and the layers of shapes-sdxl read 128"),
        (_shapes(), {"image_encoder": "other"}, "unknown image encoder 'other'; known: clip-small"),
        ({**_shapes(), "0.to_q_lora.down.weight": (4, 4)}, {}, "FaceID"),
    ]
    with client:
        for shapes, fields, reason in cases:
            with subtests.test(reason=reason):
                response = _add(client, tmp_path, shapes, **fields)
                assert (response.status_code, response.json()["code"]) == (422, "adapter_refused")
                assert reason in response.json()["detail"]
    assert storage.find("inputs/") == []
