"""Signs by a command or another package, so that the private key is in no worker: a KMS, an HSM, an agent."""

from __future__ import annotations

import logging
import shlex
import subprocess
from collections.abc import Callable
from importlib.metadata import entry_points

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from contracts.errors import SettingsError

_log = logging.getLogger(__name__)

#: Group of entry points; each names a function that returns the signature of bytes.
SIGNERS = "darkroom.credentials_signers"
_TIMEOUT_SECONDS = 30.0
_PREFIX = "entry:"
#: What is signed at the start, so that a signer of another key is told before an image needs it.
_PROBE = b"Darkroom asks whether this signer has the key of its certificate."
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
Sign = Callable[[bytes], bytes]


def open_external_signer(text: str, key: PublicKeyTypes) -> Sign:
    """Return a function that signs as C2PA wants it; it raises RuntimeError, and logs why.

    Args:
        text: a command that reads bytes and writes their signature, or `entry:NAME`.
        key: of the certificate. Elliptic curves sign the hash of the curve's size, in DER or raw.

    Raises:
        SettingsError: it cannot be found, fails, or signs with another key.
    """
    inner = _entry_point(text.removeprefix(_PREFIX)) if text.startswith(_PREFIX) else _command(text)

    def sign(data: bytes) -> bytes:
        try:
            return _raw(inner(data), key)
        except Exception as error:
            _log.exception("the external signer failed")
            raise RuntimeError("the external signer failed") from error

    try:
        signature = _raw(inner(_PROBE), key)
    except Exception as error:
        raise SettingsError(f"it could not sign: {error}") from error
    try:
        _verify(signature, key)
    except InvalidSignature:
        raise SettingsError("it signs with another key than the first certificate's") from None
    return sign


def _command(text: str) -> Sign:
    words = shlex.split(text)

    def sign(data: bytes) -> bytes:
        done = subprocess.run(  # noqa: S603  # the operator's own command
            words, input=data, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
        )
        if done.returncode != 0 or not done.stdout:
            reason = done.stderr.decode(errors="replace").strip().partition("\n")[0]
            raise RuntimeError(f"{words[0]} ended with status {done.returncode}: {reason or 'no signature'}")
        return done.stdout

    return sign


def _entry_point(name: str) -> Sign:
    found = {point.name: point for point in entry_points(group=SIGNERS)}
    if name not in found:
        raise SettingsError(
            f"no installed package has a signer {name}; there are: {', '.join(sorted(found)) or 'none'}"
        )
    sign: Sign = found[name].load()
    return sign


def _raw(signature: bytes, key: PublicKeyTypes) -> bytes:
    """A signature as COSE has it: of a curve, both numbers, each as long as the key. RFC 9053, 2.1."""
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return signature
    size = (key.key_size + 7) // 8
    if len(signature) == 2 * size:
        return signature
    return b"".join(number.to_bytes(size) for number in decode_dss_signature(signature))


def _verify(signature: bytes, key: PublicKeyTypes) -> None:
    """Raise InvalidSignature unless the key made this signature of the probe."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        half = len(signature) // 2
        encoded = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
        key.verify(encoded, _PROBE, ec.ECDSA(_HASHES[key.curve.name]))
    elif isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, _PROBE)
