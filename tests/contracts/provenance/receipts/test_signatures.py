"""Signed receipts: what a signature covers, whose key it is, and what is told of a file that was changed."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from redis import Redis

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.errors import SettingsError
from contracts.jobs.receipt import Receipt, Weights
from contracts.provenance.image_data import hash_image_data
from contracts.provenance.opening import open_receipt_signer
from contracts.provenance.receipts.claims import SIGNATURE
from contracts.provenance.receipts.merkle import hash_leaf, merkle_root
from contracts.provenance.receipts.signatures import ReceiptSigner, check_signature
from contracts.provenance.receipts.verification import verify_receipt_of
from contracts.provenance.roots import read_public_keys
from contracts.settings import BUILT_IN_CATALOGUE, SharedSettings
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from tests.support.jobs import make_job
from worker.generation.results.outputs import JobResult, store

IMAGE = Image.effect_noise((64, 64), 50).convert("RGB")
OTHER = Image.effect_noise((64, 64), 50).convert("RGB")
KEY = Ed25519PrivateKey.generate()
HASHES = [[hash_leaf(bytes([step])) for step in range(3)]]


def test_the_root_is_that_of_rfc_6962() -> None:
    """The values of Certificate Transparency's own test vectors."""
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    leaves = [hash_leaf(bytes.fromhex(text)) for text in inputs]
    assert merkle_root([]) == hashlib.sha256(b"").hexdigest()
    assert merkle_root(leaves[:1]) == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle_root(leaves[:3]) == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert merkle_root(leaves) == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.fixture
def catalogue() -> Catalogue:
    return read_catalogue(BUILT_IN_CATALOGUE)


@pytest.fixture
def signer(settings: SharedSettings, storage: Storage, redis_url: str) -> ReceiptSigner:
    signed = settings.model_copy(update={"receipts": "signed"})
    opened = open_receipt_signer(signed, storage, Redis.from_url(redis_url, decode_responses=True))
    assert opened is not None
    return opened


def signed_file(
    catalogue: Catalogue, storage: Storage, signer: ReceiptSigner, output_format: str = "png"
) -> bytes:
    job = make_job(catalogue, "sdxl", output_format=output_format)
    receipt = Receipt(parameters=job, seeds=job.seeds, model=Weights(id=job.model, sha256="0" * 64))
    result = JobResult("generated", images=[IMAGE], receipt=receipt, step_hashes=HASHES)
    (image,) = store(result, "id", 1, storage, receipt_signer=signer).stored
    return storage.read(image.key)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_file_is_known_by_the_published_key_and_the_same_image_is_the_same_bytes(
    output_format: str, catalogue: Catalogue, storage: Storage, signer: ReceiptSigner
) -> None:
    file = signed_file(catalogue, storage, signer, output_format)
    assert signed_file(catalogue, storage, signer, output_format) == file
    found = verify_receipt_of(file, read_public_keys(storage))
    assert (found.verdict, found.steps) == ("trusted", HASHES[0])
    assert found.key_id == read_public_keys(storage)[0]["kid"]
    assert found.receipt is not None
    assert found.receipt["pixels_sha256"] == hashlib.sha256(IMAGE.tobytes()).hexdigest()
    assert verify_receipt_of(file, []).verdict == "intact"


def resaved(file: bytes, image: Image.Image | None = None, texts: Mapping[str, str] | None = None) -> bytes:
    """A PNG saved again by a program that keeps texts, with another picture or other texts."""
    with Image.open(io.BytesIO(file)) as opened:
        opened.load()
        chunks, out = PngInfo(), io.BytesIO()
        for name, text in {**opened.text, **(texts or {})}.items():  # type: ignore[attr-defined]
            chunks.add_text(name, text)
        (image or opened).save(out, "PNG", pnginfo=chunks, compress_level=1)
    return out.getvalue()


def test_a_signature_survives_saving_again_and_not_another_picture_receipt_or_signature(
    catalogue: Catalogue, storage: Storage, signer: ReceiptSigner
) -> None:
    file = signed_file(catalogue, storage, signer)
    keys = read_public_keys(storage)
    with Image.open(io.BytesIO(file)) as image:
        receipt, token = image.text["darkroom"], image.text[SIGNATURE]  # type: ignore[attr-defined]

    def problems(changed: bytes) -> tuple[str, ...]:
        found = verify_receipt_of(changed, keys)
        assert found.receipt is None or found.verdict == "trusted"
        return found.problems

    assert problems(resaved(file)) == ()
    assert problems(resaved(file, OTHER)) == ("the pixels",)
    assert problems(resaved(file, texts={"darkroom": receipt.replace("a red circle", "a blue square")})) == (
        "the receipt",
    )
    for broken in (
        "",
        "x",
        "a.b.c",
        token[:-4] + "AAAA",
        token.replace(".", ".e30", 1),
        "e30.e30.",
        "W10.W10.W10",
    ):
        assert problems(resaved(file, texts={SIGNATURE: broken})) == ("the signature",)


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_the_texts_of_one_photo_are_not_believed_in_another(
    output_format: str, catalogue: Catalogue, storage: Storage, signer: ReceiptSigner
) -> None:
    file = signed_file(catalogue, storage, signer, output_format)
    with Image.open(io.BytesIO(file)) as image:
        exif, out = image.getexif(), io.BytesIO()
    OTHER.save(out, output_format, exif=exif)
    assert verify_receipt_of(out.getvalue(), []).problems == ("the image",)


def test_the_hash_of_an_image_is_blind_to_metadata_and_survives_damage() -> None:
    for output_format in ("jpeg", "webp"):
        exif = Image.Exif()
        exif[0x010E] = "text"
        plain, described = io.BytesIO(), io.BytesIO()
        IMAGE.save(plain, output_format)
        IMAGE.save(described, output_format, exif=exif, icc_profile=b"x" * 200)
        assert hash_image_data(plain.getvalue()) == hash_image_data(described.getvalue())
        data = plain.getvalue()
        for end in (0, 3, 13, 21, len(data) // 2):
            assert hash_image_data(data[:end]) != hash_image_data(data)


def test_hostile_texts_are_a_signature_that_is_not_valid_or_of_a_stranger() -> None:
    stranger = ReceiptSigner(Ed25519PrivateKey.generate)
    own = ReceiptSigner(lambda: KEY)
    known = check_signature(own.sign({"a": 1}), [])
    assert (known.is_valid, known.is_known, known.claims) == (True, False, {"a": 1})
    header = json.loads(base64.urlsafe_b64decode(own.sign({}).partition(".")[0] + "=="))
    # The id of a known key beside a stranger's key: the key counts, not what it calls itself.
    token = stranger.sign({"kid": header["kid"]})
    assert not check_signature(token, [header["jwk"]]).is_known
    assert check_signature(own.sign({}), [header["jwk"]]).is_known
    assert check_signature("." * 10_000, []).is_valid is False


def test_a_restart_keeps_the_key_and_a_given_key_is_published_beside_the_former(
    settings: SharedSettings, tmp_path: Path, redis_url: str
) -> None:
    storage, connection = LocalStorage(tmp_path), Redis.from_url(redis_url, decode_responses=True)
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = KEY.private_bytes(serialization.Encoding.PEM, form, encryption).decode()
    made = settings.model_copy(update={"receipts": "signed"})
    given = SharedSettings(receipts="signed", receipts_key=pem)
    ids = []
    for chosen in (made, made, given):
        signer = open_receipt_signer(chosen, storage, connection)
        assert signer is not None
        ids.append(check_signature(signer.sign({}), read_public_keys(storage)))
    assert all(one.is_known for one in ids)
    assert ids[0].key_id == ids[1].key_id != ids[2].key_id
    assert len(read_public_keys(storage)) == 2
    assert open_receipt_signer(settings, storage, connection) is None


def test_a_key_of_another_kind_is_refused_by_the_name_of_its_setting(storage: Storage, redis_url: str) -> None:
    with pytest.raises(SettingsError, match="DARKROOM_RECEIPTS_KEY: must be a private key as PEM"):
        open_receipt_signer(
            SharedSettings(receipts="signed", receipts_key="x"), storage, Redis.from_url(redis_url)
        )
