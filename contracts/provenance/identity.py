"""The key and the certificates that sign Content Credentials: the operator's, or ones made for development.

A certificate says who signed. Development certificates are named as such, and nobody outside trusts them: a reader
shows the file as intact and its signer as unknown, unless it is given their root. Signs nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from contracts.errors import NotFound, SettingsError
from contracts.provenance.external_signer import Sign, open_external_signer
from contracts.provenance.roots import DEVELOPMENT_KEY
from contracts.storage import Storage

DEVELOPMENT = "Darkroom development certificate, not trusted"
_DAYS = 3650
#: What a C2PA signer's certificate may be for: e-mail protection, or C2PA's own purpose. C2PA 2.2, 14.5.
_PURPOSES = [ExtendedKeyUsageOID.EMAIL_PROTECTION, ObjectIdentifier("1.3.6.1.4.1.62558.2.1")]


@dataclass(frozen=True)
class Identity:
    """The signer: key and certificates.

    Attributes:
        algorithm: C2PA's name of the signature: `es256`, `es384`, `es512` or `ed25519`.
        key: private key, PEM (PKCS #8); empty where `sign` signs instead.
        certificates: PEM; the signer's first, then its issuers.
        is_development: whether nobody outside trusts it.
        sign: signs in place of a key, in a process that has the key.
    """

    algorithm: str
    key: str
    certificates: str
    is_development: bool = False
    sign: Sign | None = None


def read_identity(key: str, certificates: str, signer_command: str = "") -> Identity:
    """Return the operator's identity.

    Args:
        signer_command: what signs in place of a key; see `contracts.provenance.external_signer`.

    Raises:
        SettingsError: it is not PEM, the certificate is not for this key, was self-signed, or has expired.
    """
    if signer_command:
        return _external_identity(signer_command, certificates)
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
        chain = x509.load_pem_x509_certificates(certificates.encode())
    except (ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise SettingsError(f"key and certificates must be PEM, the key without a password: {reason}") from None
    signer = chain[0]
    if _public(private.public_key()) != _public(signer.public_key()):
        raise SettingsError("the first certificate is for another key: put the signer's certificate first")
    _check_certificate(signer)
    return Identity(_algorithm(private.public_key()), key, certificates)


def _external_identity(signer_command: str, certificates: str) -> Identity:
    try:
        signer = x509.load_pem_x509_certificates(certificates.encode())[0]
    except ValueError as error:
        raise SettingsError(f"certificates must be PEM: {str(error).partition(chr(10))[0]}") from None
    _check_certificate(signer)
    public = signer.public_key()
    return Identity(_algorithm(public), "", certificates, sign=open_external_signer(signer_command, public))


def _check_certificate(signer: x509.Certificate) -> None:
    """Raise SettingsError where readers would not accept a signer's certificate."""
    now = datetime.now(UTC)
    if signer.issuer == signer.subject:
        raise SettingsError(
            "the certificate was self-signed, which C2PA refuses: use one that an authority issued"
        )
    if not signer.not_valid_before_utc <= now <= signer.not_valid_after_utc:
        raise SettingsError(
            f"the certificate is valid from {signer.not_valid_before_utc:%Y-%m-%d} to "
            f"{signer.not_valid_after_utc:%Y-%m-%d}, and today is {now:%Y-%m-%d}"
        )


def development_identity(storage: Storage, lock: Callable[[], AbstractContextManager[object]]) -> Identity:
    """Return the service's development identity; the first process that asks makes it.

    Args:
        storage: keeps it for all processes.
        lock: held by one process of the service at a time.

    Raises:
        Unavailable: the storage does not answer.
    """
    with lock():
        try:
            text = storage.read(DEVELOPMENT_KEY).decode()
        except NotFound:
            text = _make_development_identity()
            storage.write(DEVELOPMENT_KEY, text.encode())
    key, found, certificates = text.partition("-----END PRIVATE KEY-----\n")
    return Identity("es256", key + found, certificates, is_development=True)


def _make_development_identity() -> str:
    """Make a root, whose key is forgotten, and a certificate that it issues; return key and certificates, PEM."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = _name(f"{DEVELOPMENT}: root")
    start = datetime.now(UTC) - timedelta(hours=1)
    root = (
        _builder(root_name, root_name, root_key.public_key(), start)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    signer = (
        _builder(_name(DEVELOPMENT), root_name, key.public_key(), start)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_PURPOSES), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    return _private_pem(key) + _pem(signer) + _pem(root)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=_DAYS))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Darkroom"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _algorithm(key: PublicKeyTypes) -> str:
    """C2PA's name of the signatures of a key."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    raise SettingsError(f"the key must be Ed25519 or on one of the curves {', '.join(_CURVES)}")


_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


def _public(key: object) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_bytes(encoding, form))  # type: ignore[attr-defined]  # of any kind of key


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()
