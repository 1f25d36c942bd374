"""Signs what a file's receipt claims, as a JSON Web Signature with Ed25519, and checks it. RFC 7515, RFC 8037.

Unlike Content Credentials, the same claims give the same signature.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from contracts.provenance.receipts.keys import Jwk, decode, encode, public_jwk, thumbprint


class ReceiptSigner:
    """The signer of one process. Safe in several threads."""

    def __init__(self, key: Callable[[], Ed25519PrivateKey]) -> None:
        """Build it; the key is asked for at the first signature."""
        self._open_key = key

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a compact JWS of the claims, with the public key in its header.

        Raises:
            Unavailable: Redis or the storage, which keep the key, do not answer.
        """
        jwk = public_jwk(self._key)
        header = {"alg": "EdDSA", "kid": jwk["kid"], "jwk": {name: jwk[name] for name in ("crv", "kty", "x")}}
        signed = f"{_part(header)}.{_part(claims)}"
        return f"{signed}.{encode(self._key.sign(signed.encode()))}"

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        return self._open_key()


@dataclass(frozen=True)
class Signature:
    """The result of checking a signature.

    Attributes:
        is_valid: whether the key in its header made it.
        is_known: whether that key is among those given.
        key_id: thumbprint of the key.
        claims: what was signed; empty unless valid.
    """

    is_valid: bool
    is_known: bool = False
    key_id: str = ""
    claims: Mapping[str, Any] | None = None


def check_signature(token: str, keys: Sequence[Jwk]) -> Signature:
    """Check a compact JWS; whatever else the text is, it is a signature that is not valid.

    Args:
        keys: public keys to trust.
    """
    try:
        header, payload, signature = token.split(".")
        jwk = json.loads(decode(header))["jwk"]
        key, key_id = Ed25519PublicKey.from_public_bytes(decode(jwk["x"])), thumbprint(jwk)
        key.verify(decode(signature), f"{header}.{payload}".encode())
        claims = json.loads(decode(payload))
    except (ValueError, KeyError, TypeError, RecursionError, InvalidSignature):
        return Signature(is_valid=False)
    known = {one.get("x") for one in keys}
    return Signature(True, jwk["x"] in known, key_id, claims if isinstance(claims, dict) else None)


def _part(content: Mapping[str, Any]) -> str:
    return encode(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
