"""Signed images: read back by the reference library, unchanged in all else, and every change is found."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import c2pa
import pytest
from PIL import Image, ImageDraw
from redis import Redis

from contracts.errors import NotFound
from contracts.provenance.credentials import ContentCredentials
from contracts.provenance.manifest import RECEIPT_LABEL, iptc_xmp
from contracts.provenance.opening import open_credentials
from contracts.provenance.pixels import hash_pixels
from contracts.provenance.roots import read_root
from contracts.provenance.verification import Verification, verify
from contracts.settings import SharedSettings
from contracts.storage.local import LocalStorage
from worker.generation.results.outputs import encode_image

PROMPT = "a red circle that nobody else may read"
RECEIPT = {
    "seed": 7,
    "model": {"id": "shapes-sdxl", "sha256": "0" * 64},
    "parameters": {"task": "txt2img", "prompt": PROMPT, "negative_prompt": None},
}
TEXTS = {"darkroom": json.dumps({"seed": 7}), "parameters": "a red circle\nSteps: 3, Seed: 7"}
FORMATS = ("png", "jpeg", "webp")


def picture() -> Image.Image:
    image = Image.effect_noise((96, 64), 60).convert("RGB")
    ImageDraw.Draw(image).ellipse((16, 16, 48, 48), fill="red")
    return image


IMAGE = picture()


def credentials_of(redis_url: str, storage: LocalStorage, prompts: str = "text") -> ContentCredentials:
    settings = SharedSettings.model_validate({"credentials": "on", "credentials_prompts": prompts})
    opened = open_credentials(settings, storage, Redis.from_url(redis_url, decode_responses=True))
    assert opened is not None
    return opened


@pytest.fixture
def credentials(redis_url: str, storage: LocalStorage) -> ContentCredentials:
    return credentials_of(redis_url, storage)


def encode(file_format: str, *, has_source: bool = False) -> bytes:
    return encode_image(IMAGE, file_format, 90, TEXTS, iptc_xmp(has_source=has_source))


def sign(credentials: ContentCredentials, file_format: str, source: str | None = None) -> bytes:
    data = encode(file_format, has_source=source is not None)
    return credentials.sign(data, file_format, RECEIPT, hash_pixels(IMAGE), source)


def check(tmp_path: Path, data: bytes, root: str | None = None) -> Verification:
    path = tmp_path / "file"
    path.write_bytes(data)
    return verify(path, root)


def read(data: bytes, file_format: str) -> dict[str, Any]:
    report = json.loads(c2pa.Reader(f"image/{file_format}", io.BytesIO(data)).json())
    manifest: dict[str, Any] = report["manifests"][report["active_manifest"]]
    return manifest


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_signed_file_is_trusted_with_the_root_and_keeps_its_pixels_and_metadata(
    file_format: str, credentials: ContentCredentials, storage: LocalStorage, tmp_path: Path
) -> None:
    plain, signed = encode(file_format), sign(credentials, file_format)
    assert signed != plain
    with Image.open(io.BytesIO(plain)) as before, Image.open(io.BytesIO(signed)) as after:
        assert after.tobytes() == before.tobytes()
        assert dict(after.getexif()) == dict(before.getexif())
        if file_format == "png":
            assert after.text == before.text  # type: ignore[attr-defined]
            assert set(TEXTS) <= set(after.text)  # type: ignore[attr-defined]
    found = check(tmp_path, signed)
    assert (found.verdict, found.problems) == ("intact", ())
    assert found.receipt == {**RECEIPT, "pixels_sha256": hash_pixels(IMAGE)}
    assert check(tmp_path, signed, read_root(SharedSettings(credentials="on"), storage)).verdict == "trusted"


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_file_says_that_a_model_made_it_in_c2pa_s_words_and_in_iptc_s(
    file_format: str, credentials: ContentCredentials
) -> None:
    signed = sign(credentials, file_format)
    actions = next(
        a["data"]["actions"] for a in read(signed, file_format)["assertions"] if "actions" in a["label"]
    )
    term = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert [(action["action"], action["digitalSourceType"]) for action in actions] == [("c2pa.created", term)]
    assert f'Iptc4xmpExt:DigitalSourceType="{term}"'.encode() in signed


@pytest.mark.parametrize("is_signed", [False, True])
def test_an_image_made_from_another_names_it_with_its_own_credentials(
    is_signed: bool, credentials: ContentCredentials, storage: LocalStorage, tmp_path: Path
) -> None:
    storage.write("inputs/source.png", sign(credentials, "png") if is_signed else encode("png"))
    signed = sign(credentials, "png", "inputs/source.png")
    manifest = read(signed, "png")
    actions = next(a["data"]["actions"] for a in manifest["assertions"] if "actions" in a["label"])
    assert [action["action"] for action in actions] == ["c2pa.opened", "c2pa.edited"]
    assert actions[1]["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    (ingredient,) = manifest["ingredients"]
    assert (ingredient["title"], ingredient["relationship"]) == ("source.png", "parentOf")
    assert ("active_manifest" in ingredient) is is_signed
    assert check(tmp_path, signed).verdict == "intact"


@pytest.mark.parametrize("file_format", FORMATS)
def test_changed_bytes_of_the_image_or_its_metadata_are_found(
    file_format: str, credentials: ContentCredentials, tmp_path: Path
) -> None:
    signed = sign(credentials, file_format)
    if file_format == "png":
        changed = signed.replace(b"Seed: 7", b"Seed: 8", 1)
    else:
        place = signed.rindex(encode(file_format)[-600:-400])
        changed = signed[: place + 100] + bytes([signed[place + 100] ^ 1]) + signed[place + 101 :]
    assert len(changed) == len(signed)
    assert changed != signed
    found = check(tmp_path, changed)
    assert (found.verdict, found.problems) == ("changed", ("assertion.dataHash.mismatch",))


def test_a_file_that_a_program_saved_again_has_no_credentials(
    credentials: ContentCredentials, tmp_path: Path
) -> None:
    again = io.BytesIO()
    with Image.open(io.BytesIO(sign(credentials, "png"))) as image:
        image.save(again, "PNG")
    assert check(tmp_path, again.getvalue()) == Verification("unsigned")


def test_another_picture_under_an_honest_receipt_is_found_by_its_pixels(
    credentials: ContentCredentials, tmp_path: Path
) -> None:
    other = credentials.sign(encode("png"), "png", RECEIPT, "0" * 64, None)
    assert check(tmp_path, other).same_pixels is False
    assert check(tmp_path, sign(credentials, "png")).same_pixels is True


def test_with_hashes_for_prompts_no_word_of_them_is_signed(redis_url: str, storage: LocalStorage) -> None:
    signed = sign(credentials_of(redis_url, storage, "hash"), "png")
    assert b"nobody else" not in signed
    receipt = next(a["data"] for a in read(signed, "png")["assertions"] if a["label"] == RECEIPT_LABEL)
    assert receipt["parameters"]["prompt"].startswith("sha256:")
    assert receipt["parameters"]["negative_prompt"] is None


def test_a_source_that_has_expired_is_said(credentials: ContentCredentials) -> None:
    with pytest.raises(NotFound):
        sign(credentials, "png", "inputs/gone.png")
