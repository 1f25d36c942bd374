"""Images that a worker signs: stored signed, with the hash of what is delivered and of what was generated."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image
from redis import Redis

from cli.main import main
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.jobs.failures import JobFailed
from contracts.jobs.receipt import Receipt, Weights
from contracts.provenance.opening import open_credentials
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.images import encode_image
from tests.support.jobs import make_job
from worker.generation.results.outputs import JobResult, store

IMAGE = Image.effect_noise((64, 64), 50).convert("RGB")


def result(catalogue: Catalogue, mode: Mode = Mode.TXT2IMG) -> JobResult:
    job = make_job(catalogue, "sdxl", mode)
    receipt = Receipt(parameters=job, seeds=job.seeds, model=Weights(id=job.model, sha256="0" * 64))
    return JobResult("generated", images=[IMAGE], receipt=receipt)


@pytest.fixture
def signed_settings(settings: SharedSettings) -> SharedSettings:
    return settings.model_copy(update={"credentials": "on"})


def test_a_signed_image_has_the_hash_of_its_file_and_the_pixels_of_an_unsigned_one(
    catalogue: Catalogue, signed_settings: SharedSettings, storage: Storage, redis_url: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    credentials = open_credentials(signed_settings, storage, Redis.from_url(redis_url, decode_responses=True))
    plain = store(result(catalogue), "plain", 1, storage)
    signed = store(result(catalogue), "signed", 1, storage, credentials)
    assert plain.receipt is not None
    assert signed.receipt is not None
    pixels = hashlib.sha256(IMAGE.tobytes()).hexdigest()
    assert signed.receipt.pixels_sha256 == plain.receipt.pixels_sha256 == [pixels]
    (image,) = signed.stored
    data = storage.read(image.key)
    assert (image.sha256, image.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert image.sha256 != plain.stored[0].sha256

    (tmp_path / "a.png").write_bytes(data)
    assert main(["verify", str(tmp_path / "a.png")]) == 0
    shown = capsys.readouterr().out
    assert "verdict    intact" in shown
    assert "made by    shapes-sdxl (txt2img), seed 7" in shown
    assert "pixels     those of the receipt" in shown
    (tmp_path / "b.png").write_bytes(storage.read(plain.stored[0].key))
    assert main(["verify", str(tmp_path / "b.png")]) == 1
    assert "no Content Credentials" in capsys.readouterr().err
    assert main(["verify", str(Path(__file__))]) == 1
    assert "not a PNG, JPEG or WebP file" in capsys.readouterr().err


def test_unsigned_images_stay_the_same_bytes(catalogue: Catalogue, storage: Storage) -> None:
    first, second = (store(result(catalogue), name, 1, storage) for name in ("first", "second"))
    assert first.stored[0].sha256 == second.stored[0].sha256


def test_an_image_whose_source_has_expired_fails_by_name_and_is_not_stored_unsigned(
    catalogue: Catalogue, signed_settings: SharedSettings, storage: Storage, redis_url: str
) -> None:
    credentials = open_credentials(signed_settings, storage, Redis.from_url(redis_url, decode_responses=True))
    storage.delete("inputs/image.png")
    with pytest.raises(JobFailed, match="the input image is no longer stored"):
        store(result(catalogue, Mode.IMG2IMG), "id", 1, storage, credentials)
    assert storage.find("images/") == []
    storage.write("inputs/image.png", encode_image(IMAGE))
    assert store(result(catalogue, Mode.IMG2IMG), "id", 1, storage, credentials).status == "completed"
