"""ControlNets over HTTP: uploaded, listed, used by their owner alone, and removed; no worker runs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.numpy import load_file, save_file

from app.main import create_app
from app.settings import ApiSettings
from contracts.queue.client import JobQueue
from contracts.settings import BUILT_IN_CATALOGUE, SharedSettings
from tests.support.control_loras import write_control_lora
from tests.support.images import encode_image

MODELS = BUILT_IN_CATALOGUE.parent
FILE = MODELS / "controlnets" / "shapes-sdxl-silhouette" / "diffusion_pytorch_model.safetensors"
#: Of the blocks of the small model's UNet.
WIDTHS = tuple(json.loads((MODELS / "shapes-sdxl" / "unet" / "config.json").read_text())["block_out_channels"])
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


def adapter_file(folder: Path, *widths: int, lacks: str = "") -> Path:
    """The file of a T2I-Adapter whose features have these widths."""
    tensors = {"conv_in": (widths[0], 192, 3, 3)}
    for number, (width, before) in enumerate(zip(widths, (widths[0], *widths), strict=False)):
        if width != before:
            tensors[f"body.{number}.in_conv"] = (width, before, 1, 1)
        tensors[f"body.{number}.resnets.0.block1"] = (width, width, 3, 3)
        tensors[f"body.{number}.resnets.0.block2"] = (width, width, 1, 1)
    layers: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in tensors.items()}
    layers |= {f"{name}.bias": shape[:1] for name, shape in tensors.items()}
    found = {f"adapter.{name}": np.zeros(shape, np.float32) for name, shape in layers.items()}
    found.pop(lacks, None)
    path = folder / "adapter.safetensors"
    save_file(found, path)
    return path


def test_a_t2i_adapter_is_uploaded_as_a_controlnet_is(client: TestClient, queue: JobQueue, tmp_path: Path) -> None:
    answer = upload(client, adapter_file(tmp_path, *WIDTHS), "sketch")

    assert answer.status_code == 201, answer.text
    assert [answer.json()[name] for name in ("kind", "family", "models")] == [
        "t2i_adapter",
        "sdxl",
        ["shapes-sdxl"],
    ]
    refused = client.post("/v1/controlnet", json=request("sketch", width=72))
    assert "multiple of 16 with the T2I-Adapter sketch" in refused.json()["errors"][0]["message"]
    accepted = client.post("/v1/controlnet", json=request("sketch")).json()
    (control,) = queue.fetch(accepted["id"]).parameters.controls
    assert (control.is_t2i_adapter, control.sha256) == (True, answer.json()["sha256"])
    again = client.post(f"/v1/jobs/{accepted['id']}/rerun", json={"seed": 5})
    assert queue.fetch(again.json()["id"]).parameters.controls == (control,)


@pytest.mark.parametrize(
    ("widths", "lacks", "words"),
    [
        ((320, 640), "", "it makes features of 320 channels at 1/8"),
        (WIDTHS, "adapter.body.0.resnets.0.block2.bias", "it lacks adapter.body.0.resnets.0.block2.bias"),
        (WIDTHS, "adapter.conv_in.weight", "its layer adapter.conv_in.weight does not read 192"),
    ],
)
def test_a_t2i_adapter_that_fits_no_model_or_is_not_whole_is_refused(
    client: TestClient, tmp_path: Path, widths: tuple[int, ...], lacks: str, words: str
) -> None:
    answer = upload(client, adapter_file(tmp_path, *widths, lacks=lacks), "sketch")
    assert answer.status_code == 422
    assert words in answer.text


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
        ("shapes-sd3/transformer/diffusion_pytorch_model.safetensors", "and none of SD3, FLUX.1 or Qwen-Image"),
        ("loras/bad/truncated.safetensors", "the file"),
    ]:
        with subtests.test(path=path, words=words):
            answer = upload(client, MODELS / path)
            assert answer.status_code == 422
            assert words in answer.text


def net_file(family: str) -> Path:
    return MODELS / "controlnets" / f"shapes-{family}-canny" / "diffusion_pytorch_model.safetensors"


def test_controlnets_of_transformers_and_control_loras_are_uploaded_as_those_of_unets_are(
    client: TestClient, queue: JobQueue, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    whole = write_control_lora(MODELS, tmp_path / "lora.safetensors")
    values = {family: sum(map(np.size, load_file(net_file(family)).values())) for family in ("sd3", "flux")}
    for path, model, count in [
        (net_file("sd3"), "shapes-sd3", values["sd3"]),
        (net_file("flux"), "shapes-flux", values["flux"]),
        (tmp_path / "lora.safetensors", "shapes-sdxl", sum(tensor.numel() for tensor in whole.values())),
    ]:
        with subtests.test(model=model):
            answer = upload(client, path, "theirs")
            assert answer.status_code == 201, answer.text
            assert answer.json()["models"] == [model]
            accepted = client.post("/v1/controlnet", json=request("theirs", model=model))
            (control,) = queue.fetch(accepted.json()["id"]).parameters.controls
            assert (control.sha256, control.values) == (answer.json()["sha256"], count)
            assert client.delete("/v1/controlnets/theirs").status_code == 204


def test_a_transformers_controlnet_that_its_file_alone_does_not_tell_is_refused_by_the_layer(
    client: TestClient, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    union = "controlnet_mode_embedder.weight"
    for family, name, shape, words in [
        ("sd3", "pos_embed_input.proj.weight", (128, 17, 1, 1), "reads 17 channels, and shapes-sd3 gives it 16"),
        ("flux", union, (3, 128), "a union of several kinds of control: put its config.json beside it"),
        ("flux", "transformer_blocks.0.attn.to_q.weight", None, "lacks transformer_blocks.0.attn.to_q.weight of"),
        (
            "flux",
            "transformer_blocks.0.attn.to_q.weight",
            (64, 64),
            "to_q.weight of [64, 64], and shapes-flux",
        ),
        ("flux", "single_transformer_blocks.99.norm.linear.bias", (3,), "are not numbered from 0 on"),
        ("sd3", "pos_embed_input.proj.bias", (), "pos_embed_input.proj.bias is in I8, whose scales are missing"),
        ("sd3", "norm_out.linear.bias", (256,), "it has norm_out.linear.bias of [256], and shapes-sd3 lacks it"),
    ]:
        with subtests.test(name=name):
            tensors = load_file(net_file(family))
            tensors.pop(name, None)
            tensors |= {} if shape is None else {name: np.zeros(shape, np.int8 if shape == () else np.float32)}
            save_file(tensors, tmp_path / "net.safetensors")
            answer = upload(client, tmp_path / "net.safetensors")
            assert (answer.status_code, words in answer.text) == (422, True), answer.text
