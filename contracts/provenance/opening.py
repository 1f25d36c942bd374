"""Opens the signers of a worker as its settings say. Imports the packages that sign only where it is on."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from redis import Redis
from redis.lock import Lock

from contracts.errors import SettingsError
from contracts.redis import keys
from contracts.redis.connection import redis_errors_are_unavailable
from contracts.settings import SharedSettings
from contracts.storage import Storage

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from contracts.provenance.credentials import ContentCredentials
    from contracts.provenance.identity import Identity
    from contracts.provenance.receipts.signatures import ReceiptSigner

#: A process that dies while it makes a development identity holds up the others for that long.
_LOCK_SECONDS = 30.0


def open_credentials(settings: SharedSettings, storage: Storage, connection: Redis) -> ContentCredentials | None:
    """Return the signer; None if images are not signed. A development identity is made at the first signature.

    Raises:
        SettingsError: a package is missing, or key and certificates cannot sign.
    """
    given = check_credentials(settings)
    if settings.credentials == "off":
        return None
    from contracts.provenance.credentials import ContentCredentials

    identity = partial(_development_identity, storage, connection) if given is None else lambda: given
    prompts, api_keys = settings.credentials_prompts, settings.credentials_api_keys
    return ContentCredentials(identity, storage, version("darkroom"), prompts, api_keys)


def check_credentials(settings: SharedSettings) -> Identity | None:
    """Return the operator's identity; None: images are not signed, or with a development identity.

    Raises:
        SettingsError: a package is missing, or key and certificates cannot sign.
    """
    if settings.credentials == "off":
        return None
    try:
        import c2pa  # noqa: F401

        from contracts.provenance.identity import read_identity
    except ImportError:
        raise SettingsError(
            "DARKROOM_CREDENTIALS=on needs the packages c2pa-python and cryptography: "
            "pip install 'darkroom[credentials]'"
        ) from None
    key, certificates = settings.credentials_key, settings.credentials_certificates
    signer = settings.credentials_signer
    if certificates is None:
        return None
    try:
        return read_identity("" if key is None else key.get_secret_value(), certificates, signer)
    except SettingsError as error:
        names = f"DARKROOM_CREDENTIALS_{'SIGNER' if signer else 'KEY'} and DARKROOM_CREDENTIALS_CERTIFICATES"
        raise SettingsError(f"{names}: {error}") from None


def _development_identity(storage: Storage, connection: Redis) -> Identity:
    """The identity that all processes of the service share; raises Unavailable without Redis or the storage."""
    from contracts.provenance.identity import development_identity

    with redis_errors_are_unavailable():
        return development_identity(storage, partial(_lock, connection))


def open_receipt_signer(settings: SharedSettings, storage: Storage, connection: Redis) -> ReceiptSigner | None:
    """Return the signer of receipts; None if they are not signed. The key is made or published at the first one.

    Raises:
        SettingsError: a package is missing, or the key cannot sign.
    """
    given = check_receipt_key(settings)
    if settings.receipts == "plain":
        return None
    from contracts.provenance.receipts.keys import publish_receipt_key
    from contracts.provenance.receipts.signatures import ReceiptSigner

    def open_key() -> Ed25519PrivateKey:
        with redis_errors_are_unavailable():
            return publish_receipt_key(given, storage, partial(_lock, connection))

    return ReceiptSigner(open_key)


def check_receipt_key(settings: SharedSettings) -> Ed25519PrivateKey | None:
    """Return the operator's key for receipts; None: they are not signed, or with a key that is made.

    Raises:
        SettingsError: a package is missing, or the key cannot sign.
    """
    if settings.receipts == "plain":
        return None
    try:
        from contracts.provenance.receipts.keys import read_receipt_key
    except ImportError:
        raise SettingsError(
            "DARKROOM_RECEIPTS=signed needs the package cryptography: pip install 'darkroom[credentials]'"
        ) from None
    if settings.receipts_key is None:
        return None
    try:
        return read_receipt_key(settings.receipts_key.get_secret_value())
    except SettingsError as error:
        raise SettingsError(f"DARKROOM_RECEIPTS_KEY: {error}") from None


def _lock(connection: Redis) -> Lock:
    lock: Lock = connection.lock(keys.SIGNER_LOCK, timeout=_LOCK_SECONDS, sleep=0.1)
    return lock
