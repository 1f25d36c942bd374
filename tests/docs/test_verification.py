"""`darkroom verify --again`: an honest receipt gives the same pixels, and a false one is found."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load, save

from cli.main import main
from contracts.catalogue.families import FAMILIES
from contracts.provenance.credentials import ContentCredentials
from contracts.provenance.identity import development_identity
from contracts.provenance.pixels import hash_pixels
from contracts.provenance.receipts.merkle import merkle_root
from contracts.provenance.receipts.signatures import ReceiptSigner
from contracts.provenance.receipts.verification import verify_receipt
from contracts.provenance.verification import verify
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.storage.local import LocalStorage
from tests.support.inversions import inversion_tensors
from tests.support.running_service import RunningService


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """`darkroom up` that signs images and receipts."""
    environment = {
        "DARKROOM_CREDENTIALS": "on",
        "DARKROOM_RECEIPTS": "signed",
        "DARKROOM_WORKER_WARM": '["shapes-sdxl"]',
    }
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
    again = ["verify", str(path), "--again", signing.url]
    assert main([*again, "--server", signing.url, "--steps", "all"]) == 0
    shown = capsys.readouterr().out
    assert "verdict    trusted" in shown
    assert "receipt    trusted" in shown
    assert "again      same bytes, after each of 4 steps" in shown
    assert len(job["receipt"]["latents_merkle_root"]) == 2

    for forgery, told in _forgeries(path):
        path.write_bytes(forgery)
        assert main([*again, "--steps", "all"]) == 1
        assert told in capsys.readouterr().err
    path.write_bytes(signing.bytes_of(job, 1))

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
        assert "repeated, the image has other pixels" in capsys.readouterr().err


def _forgeries(path: Path) -> Iterator[tuple[bytes, str]]:
    """Files whose receipts, signed, are not true, and what is told of each."""
    honest = verify_receipt(path, [])
    with Image.open(path) as image:
        text = image.text["darkroom"]  # type: ignore[attr-defined]
        plain = image.convert("RGB")

    def sign(text: str, steps: Sequence[str]) -> bytes:
        latents = {"merkle_root": merkle_root(steps), "sha256": steps}
        receipt_sha256 = hashlib.sha256(text.encode()).hexdigest()
        claims = {**honest.claims, "receipt_sha256": receipt_sha256, "latents": latents}
        chunks, file = PngInfo(), io.BytesIO()
        chunks.add_text("darkroom", text)
        chunks.add_text("darkroom_signature", ReceiptSigner(Ed25519PrivateKey.generate).sign(claims))
        plain.save(file, "PNG", pnginfo=chunks)
        return file.getvalue()

    steps = list(honest.steps)
    yield sign(text.replace('"scale": 0.5', '"scale": 0.51'), steps), "not the same: step 1"
    yield sign(text.replace("a red circle", "a blue circle"), steps), "not the same: step 1"
    yield sign(text, [*steps[:2], "0" * 64, steps[3]]), "not the same: step 3"
    yield sign(text, steps[:3]), "not the same: step 4"
    yield sign(text, []), "no signed receipt says what its steps were"
    yield sign('{"seed": 7}', steps), "its receipt is not one that Darkroom writes"


def test_an_image_made_from_others_is_made_again_from_the_same_files_and_no_others(
    signing: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, encoders = BUILT_IN_CATALOGUE.parent / "shapes-sdxl", FAMILIES["sdxl"].inversion_encoders
    word = save(inversion_tensors(checkpoint, encoders))
    signing.http.post("/v1/textual-inversions", files={"file": ("smudge.safetensors", word)}).raise_for_status()
    files = {name: tmp_path / f"{name}.png" for name in ("photo", "mask", "control", "other")}
    for number, path in enumerate(files.values()):
        image = Image.new("RGB", (64, 64), (90 * number, 40, 200))
        image.paste((255, 255, 255), (8, 8 + number, 40, 56))
        image.save(path)
    Image.open(files["mask"]).convert("L").point(lambda level: 255 * (level > 128)).save(files["mask"])
    encoded = {name: base64.b64encode(path.read_bytes()).decode() for name, path in files.items()}
    control = {"controlnet": "shapes-sdxl-canny", "image": encoded["control"], "preprocess": "canny"}
    job = signing.run(
        "controlnet",
        prompt="a smudge circle",
        image=encoded["photo"],
        mask_image=encoded["mask"],
        controls=[control],
        textual_inversions=[{"name": "smudge"}],
        seed=1,
        num_inference_steps=3,
    )
    path = tmp_path / "image.png"
    path.write_bytes(signing.bytes_of(job))

    def verify_with(*names: str) -> tuple[int, str]:
        given = [text for name in names for text in ("--input", str(files[name]))]
        code = main(["verify", str(path), "--again", signing.url, "--steps", "all", *given])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    count = len(signing.http.get("/v1/jobs").json()["data"])
    for names, told in (
        ((), "the receipt's image (SHA-256"),
        (("photo", "mask"), "the receipt's controls.0.image (SHA-256"),
        (("photo", "control"), "the receipt's mask_image (SHA-256"),
        (("photo", "control", "mask", "other"), "other.png (SHA-256"),
        (("photo", "control", "other"), "the receipt's mask_image (SHA-256"),
    ):
        code, shown = verify_with(*names)
        assert (code, told in shown) == (1, True), shown
    assert len(signing.http.get("/v1/jobs").json()["data"]) == count  # nothing was run
    code, shown = verify_with("mask", "control", "photo")
    assert (code, "same bytes, after each of 1 step" in shown) == (0, True), shown

    signing.http.delete("/v1/textual-inversions/smudge").raise_for_status()
    changed = save(inversion_tensors(checkpoint, encoders, seed=1))
    signing.http.post("/v1/textual-inversions", files={"file": ("smudge.safetensors", changed)}).raise_for_status()
    code, shown = verify_with("mask", "control", "photo")
    assert (code, "not the same: step 1; what differs here: textual_inversions" in shown) == (1, True), shown


def test_one_step_is_made_again_from_the_latents_that_a_job_has_kept(
    signing: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = signing.run("txt2img", seed=3, num_images=2, num_inference_steps=4, keep_latents=True)
    output = tmp_path / "out.png"
    assert main(["jobs", "fetch", job["id"], "-o", str(output), "--server", signing.url]) == 0
    image, latents = tmp_path / "out-1.png", tmp_path / "out.latents.safetensors"
    assert capsys.readouterr().out.splitlines()[1:] == [str(image), str(latents)]
    assert hashlib.sha256(latents.read_bytes()).hexdigest() == job["receipt"]["kept_latents"]["sha256"]
    again = ["verify", str(image), "--again", signing.url, "--latents", str(latents)]
    for _ in range(2):
        assert main([*again, "--steps", "1"]) == 0
        assert "of 4, made again from the latents that were kept" in capsys.readouterr().out
    assert main([*again, "--steps", "all"]) == 1
    assert "--latents needs --steps 1" in capsys.readouterr().err

    tensors = load(latents.read_bytes())
    tensors["step.003"][1, 0, 0, 0] += 1e-3
    latents.write_bytes(save(tensors))
    assert main([*again, "--steps", "1"]) == 1
    assert "the latents after step 3 are not those of the receipt" in capsys.readouterr().err
    latents.write_bytes(b"no tensors")
    assert main([*again, "--steps", "1"]) == 1
    assert "is not a safetensors file" in capsys.readouterr().err
    signing.http.delete(f"/v1/jobs/{job['id']}").raise_for_status()
    assert signing.http.get(f"/v1/jobs/{job['id']}/latents").status_code in (404, 410)
