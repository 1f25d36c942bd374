"""Opens the signer of a worker as its settings say. Imports the packages that sign only where it is on."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from redis import Redis

from contracts.errors import SettingsError
from contracts.redis import keys
from contracts.redis.connection import redis_errors_are_unavailable
from contracts.settings import SharedSettings
from contracts.storage import Storage

if TYPE_CHECKING:
    from contracts.provenance.credentials import ContentCredentials
    from contracts.provenance.identity import Identity

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
    return ContentCredentials(identity, storage, version("darkroom"), settings.credentials_prompts)


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
    if key is None or certificates is None:
        return None
    try:
        return read_identity(key.get_secret_value(), certificates)
    except SettingsError as error:
        names = "DARKROOM_CREDENTIALS_KEY and DARKROOM_CREDENTIALS_CERTIFICATES"
        raise SettingsError(f"{names}: {error}") from None


def _development_identity(storage: Storage, connection: Redis) -> Identity:
    """The identity that all processes of the service share; raises Unavailable without Redis or the storage."""
    from contracts.provenance.identity import development_identity

    with redis_errors_are_unavailable():
        return development_identity(
            storage, lambda: connection.lock(keys.SIGNER_LOCK, timeout=_LOCK_SECONDS, sleep=0.1)
        )
