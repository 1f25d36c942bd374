"""The Ed25519 key that signs receipts: the operator's, or one made at first use; and its public half, as JWK.

RFC 8037 (Ed25519 in JWK), RFC 7638 (a key's thumbprint is its id). Signs nothing itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.errors import NotFound, SettingsError
from contracts.provenance.roots import PUBLIC_RECEIPT_KEYS, read_public_keys
from contracts.storage import Storage

#: Where the storage keeps the key that was made. No route reads below this folder.
RECEIPT_KEY = "service/receipt-key.pem"
Jwk = dict[str, str]


def read_receipt_key(text: str) -> Ed25519PrivateKey:
    """Return a private key from PEM (PKCS #8).

    Raises:
        SettingsError: it is not PEM without a password, or of another kind.
    """
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise SettingsError(f"must be a private key as PEM, without a password: {reason}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError("must be an Ed25519 key: openssl genpkey -algorithm ed25519")
    return key


def publish_receipt_key(
    given: Ed25519PrivateKey | None, storage: Storage, lock: Callable[[], AbstractContextManager[object]]
) -> Ed25519PrivateKey:
    """Return the key that signs, its public half among those that the service publishes; made where none is given.

    Args:
        storage: keeps it for all processes, and the public halves of all keys that ever signed.
        lock: held by one process of the service at a time.

    Raises:
        Unavailable: the storage does not answer.
    """
    with lock():
        key = given or _stored_key(storage)
        published, own = read_public_keys(storage), public_jwk(key)
        if own not in published:
            storage.write(PUBLIC_RECEIPT_KEYS, json.dumps({"keys": [*published, own]}, indent=1).encode())
    return key


def public_jwk(key: Ed25519PrivateKey) -> Jwk:
    """Return the public half of a key."""
    encoding, form = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    required = {"crv": "Ed25519", "kty": "OKP", "x": encode(key.public_key().public_bytes(encoding, form))}
    return {**required, "kid": thumbprint(required), "use": "sig", "alg": "EdDSA"}


def thumbprint(jwk: Jwk) -> str:
    """Return the id of an Ed25519 key: its thumbprint."""
    required = {name: jwk[name] for name in ("crv", "kty", "x")}
    return encode(hashlib.sha256(json.dumps(required, separators=(",", ":")).encode()).digest())


def encode(data: bytes) -> str:
    """Return bytes in base64url without padding, as JOSE has it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Return the bytes of base64url without padding; raises ValueError."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _stored_key(storage: Storage) -> Ed25519PrivateKey:
    try:
        return read_receipt_key(storage.read(RECEIPT_KEY).decode())
    except NotFound:
        key = Ed25519PrivateKey.generate()
        form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        storage.write(RECEIPT_KEY, key.private_bytes(serialization.Encoding.PEM, form, encryption))
        return key
