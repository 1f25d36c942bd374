"""Who signs: an operator's key and certificates are checked at the start, a development pair is shared."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from redis import Redis

from contracts.errors import SettingsError
from contracts.provenance.identity import DEVELOPMENT, development_identity, read_identity
from contracts.provenance.opening import check_credentials
from contracts.provenance.roots import DEVELOPMENT_KEY, read_root
from contracts.redis import keys
from contracts.settings import SharedSettings
from contracts.storage.local import LocalStorage

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def pem(key: Key) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def certificate(key: Key, issuer: str = "authority", days: tuple[int, int] = (-1, 30)) -> str:
    def name(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])

    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name("signer")).issuer_name(name(issuer))
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now + timedelta(days=days[0])).not_valid_after(
        now + timedelta(days=days[1])
    )
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


KEY = ec.generate_private_key(ec.SECP256R1())


def test_a_key_and_its_certificate_are_an_identity() -> None:
    identity = read_identity(pem(KEY), certificate(KEY))
    assert (identity.algorithm, identity.is_development) == ("es256", False)
    wide = ec.generate_private_key(ec.SECP384R1())
    assert read_identity(pem(wide), certificate(wide)).algorithm == "es384"


@pytest.mark.parametrize(
    ("key", "certificates", "reason"),
    [
        ("no key", certificate(KEY), "must be PEM"),
        (pem(KEY), "no certificate", "must be PEM"),
        (pem(KEY), certificate(ec.generate_private_key(ec.SECP256R1())), "for another key"),
        (pem(KEY), certificate(KEY, issuer="signer"), "self-signed"),
        (pem(KEY), certificate(KEY, days=(-9, -1)), "the certificate is valid from"),
        (pem(KEY), certificate(KEY, days=(1, 9)), "the certificate is valid from"),
    ],
    ids=["not a key", "not a certificate", "another key", "self-signed", "expired", "not yet valid"],
)
def test_what_cannot_sign_is_refused_at_the_start_with_the_names_of_the_settings(
    key: str, certificates: str, reason: str
) -> None:
    settings = SharedSettings(credentials="on", credentials_key=key, credentials_certificates=certificates)
    with pytest.raises(
        SettingsError, match=r"^DARKROOM_CREDENTIALS_KEY and DARKROOM_CREDENTIALS_CERTIFICATES: "
    ) as refused:
        check_credentials(settings)
    assert reason in str(refused.value)


def test_an_rsa_key_is_refused_since_c2pa_has_no_signature_for_it_here() -> None:
    key = rsa.generate_private_key(65537, 2048)
    with pytest.raises(SettingsError, match="Ed25519"):
        read_identity(pem(key), certificate(key))


def test_a_key_without_certificates_is_refused() -> None:
    with pytest.raises(ValueError, match=r"goes together with .*: set both"):
        SharedSettings(credentials="on", credentials_key=pem(KEY))


def test_a_missing_package_is_named_at_the_start_and_not_needed_where_nothing_is_signed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(SettingsError, match=r"pip install 'darkroom\[credentials\]'"):
        check_credentials(SharedSettings(credentials="on"))
    assert check_credentials(SharedSettings()) is None


def test_all_processes_of_a_service_share_one_development_identity_which_is_named_as_such(
    redis_url: str, storage: LocalStorage
) -> None:
    found = []

    def ask() -> None:
        connection = Redis.from_url(redis_url, decode_responses=True)
        found.append(
            development_identity(storage, lambda: connection.lock(keys.SIGNER_LOCK, timeout=30, sleep=0.01))
        )

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({identity.key for identity in found}) == 1
    assert all(identity.is_development for identity in found)
    (signer, root) = x509.load_pem_x509_certificates(found[0].certificates.encode())
    assert DEVELOPMENT in signer.subject.rfc4514_string().replace("\\", "")
    signer.verify_directly_issued_by(root)


def test_readers_get_the_root_alone_and_never_the_key(storage: LocalStorage, redis_url: str) -> None:
    connection = Redis.from_url(redis_url, decode_responses=True)
    on = SharedSettings(credentials="on")
    assert read_root(on, storage) is None
    development_identity(storage, lambda: connection.lock(keys.SIGNER_LOCK, timeout=30))
    root = read_root(on, storage)
    assert root is not None
    assert "PRIVATE" not in root
    assert root.count("BEGIN CERTIFICATE") == 1
    assert storage.read(DEVELOPMENT_KEY).decode().endswith(root)
    assert read_root(SharedSettings(), storage) is None
    chain = certificate(KEY) + root
    given = SharedSettings(credentials="on", credentials_key=pem(KEY), credentials_certificates=chain)
    assert read_root(given, storage) == root
