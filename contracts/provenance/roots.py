"""The root certificate and public keys that readers of signed images need. Needs no package for signing."""

from __future__ import annotations

import json

from contracts.errors import NotFound
from contracts.settings import SharedSettings
from contracts.storage import Storage

#: Where the storage keeps a development identity: key, certificate, root. No route reads below this folder.
DEVELOPMENT_KEY = "service/content-credentials.pem"
#: Where it keeps the public keys of all receipts, as a JWK Set (RFC 7517).
PUBLIC_RECEIPT_KEYS = "service/receipt-keys.json"
_BEGIN = "-----BEGIN CERTIFICATE-----"


def read_root(settings: SharedSettings, storage: Storage) -> str | None:
    """Return the root as PEM; None where images are not signed, or none has been yet.

    Raises:
        Unavailable: the storage does not answer.
    """
    if settings.credentials == "off":
        return None
    if settings.credentials_certificates is not None:
        return last_certificate(settings.credentials_certificates)
    try:
        return last_certificate(storage.read(DEVELOPMENT_KEY).decode())
    except NotFound:
        return None


def last_certificate(certificates: str) -> str:
    """Return the last of several certificates in PEM."""
    return _BEGIN + certificates.rpartition(_BEGIN)[2]


def read_public_keys(storage: Storage) -> list[dict[str, str]]:
    """Return the public keys (JWK) that have signed receipts of this service; empty where none has.

    Raises:
        Unavailable: the storage does not answer.
    """
    try:
        keys: list[dict[str, str]] = json.loads(storage.read(PUBLIC_RECEIPT_KEYS))["keys"]
    except NotFound:
        return []
    return keys
