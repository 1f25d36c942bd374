"""The certificate and the keys that readers of signed images are given."""

from __future__ import annotations

import json

from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.provenance.roots import DEVELOPMENT_KEY, PUBLIC_RECEIPT_KEYS
from contracts.settings import SharedSettings
from contracts.storage import Storage

PATH = "/.well-known/darkroom/credentials.pem"
KEY = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n"
SIGNER, ROOT = (f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n" for name in ("signer", "root"))


def test_everybody_gets_the_root_once_an_image_has_been_signed(settings: SharedSettings, storage: Storage) -> None:
    on = ApiSettings(shared=settings.model_copy(update={"credentials": "on"}), require_keys=True)
    with TestClient(create_app(on)) as client:
        assert client.get(PATH).status_code == 404
        storage.write(DEVELOPMENT_KEY, (KEY + SIGNER + ROOT).encode())
        answer = client.get(PATH)
    assert (answer.status_code, answer.text) == (200, ROOT)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_a_service_that_signs_nothing_has_no_certificate(client: TestClient, storage: Storage) -> None:
    storage.write(DEVELOPMENT_KEY, (KEY + SIGNER + ROOT).encode())
    assert client.get(PATH).status_code == 404


def test_the_public_keys_of_receipts_are_a_jwk_set_that_is_empty_before_the_first(
    client: TestClient, storage: Storage
) -> None:
    path = "/.well-known/darkroom/keys.json"
    assert client.get(path).json() == {"keys": []}
    key = {"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "id", "use": "sig", "alg": "EdDSA"}
    storage.write(PUBLIC_RECEIPT_KEYS, json.dumps({"keys": [key]}).encode())
    assert client.get(path).json() == {"keys": [key]}
