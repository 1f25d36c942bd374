"""`darkroom verify --again`: an honest receipt gives the same pixels, and a false one is found."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from cli.main import main
from contracts.provenance.credentials import ContentCredentials
from contracts.provenance.identity import development_identity
from contracts.provenance.pixels import hash_pixels
from contracts.provenance.verification import verify
from contracts.storage.local import LocalStorage
from tests.support.running_service import RunningService


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """`darkroom up` that signs images."""
    environment = {"DARKROOM_CREDENTIALS": "on", "DARKROOM_WORKER_WARM": '["shapes-sdxl"]'}
    running = RunningService(tmp_path_factory.mktemp("signing") / "data", environment=environment)
    yield running
    assert running.stop() == 0, running.log.read_text(errors="replace")[-3000:]


def test_an_image_is_made_again_from_its_own_file_and_false_receipts_are_found(
    signing: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = {
        "seed": 7,
        "num_images": 2,
        "num_inference_steps": 4,
        "loras": [{"name": "shapes-sdxl-tint", "scale": 0.5}],
    }
    job = signing.run("txt2img", **body)
    path = tmp_path / "second.png"
    path.write_bytes(signing.bytes_of(job, 1))
    assert main(["verify", str(path), "--server", signing.url, "--again", signing.url]) == 0
    shown = capsys.readouterr().out
    assert "verdict    trusted" in shown
    assert "again      the same pixels" in shown

    receipt = dict(verify(path, None).receipt or {})
    storage = LocalStorage(tmp_path / "forger")
    forger = ContentCredentials(lambda: development_identity(storage, io.BytesIO), storage, "0", "text")
    plain = io.BytesIO()
    with Image.open(path) as image:
        pixels = hash_pixels(image)
        image.save(plain, "PNG")
    for claim in (
        {"num_inference_steps": 3},
        {"prompt": "a blue square on a white background"},
        {"guidance_scale": 5.0},
        {"loras": [{**receipt["parameters"]["loras"][0], "scale": 0.6}]},
    ):
        false = {**receipt, "parameters": {**receipt["parameters"], **claim}}
        path.write_bytes(forger.sign(plain.getvalue(), "png", false, pixels, None))
        assert main(["verify", str(path), "--again", signing.url]) == 1, claim
        assert "made again, the image has other pixels" in capsys.readouterr().err


def test_an_image_made_from_another_says_that_it_needs_it(
    signing: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = signing.run("txt2img", seed=1, num_inference_steps=2)
    job = signing.run("img2img", image=f"job:{first['id']}/0", seed=1, num_inference_steps=2, strength=1.0)
    path = tmp_path / "image.png"
    path.write_bytes(signing.bytes_of(job))
    assert main(["verify", str(path), "--again", signing.url]) == 1
    assert "this one needs its input images" in capsys.readouterr().err
