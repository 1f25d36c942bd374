"""Content Credentials signed by something that has the key, so that no worker has it."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from PIL import Image
from redis import Redis

from contracts.errors import SettingsError
from contracts.provenance.identity import Identity, development_identity
from contracts.provenance.opening import check_credentials, open_credentials
from contracts.provenance.roots import DEVELOPMENT_KEY
from contracts.provenance.verification import verify
from contracts.settings import SharedSettings
from contracts.storage.local import LocalStorage
from tests.support.images import encode_image

RECEIPT = {"seed": 7, "parameters": {"task": "txt2img", "prompt": "a red circle"}}
#: An agent that has a key and signs what it reads, as `openssl dgst -sha256 -sign` and KMS do: in DER.
AGENT = """
import sys
from pathlib import Path
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
key = serialization.load_pem_private_key(Path(sys.argv[1]).read_bytes(), None)
sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read(), ec.ECDSA(hashes.SHA256())))
"""


@pytest.fixture
def identity(storage: LocalStorage) -> Identity:
    """A key, and certificates for it that C2PA accepts."""
    return development_identity(storage, nullcontext)


def agent(folder: Path, key: str) -> str:
    """The command of an agent with this key, PEM."""
    (folder / "agent.py").write_text(AGENT)
    (folder / "key.pem").write_text(key)
    return shlex.join([sys.executable, str(folder / "agent.py"), str(folder / "key.pem")])


def test_an_image_is_signed_by_a_command_that_has_the_key(
    tmp_path: Path, storage: LocalStorage, redis_url: str, identity: Identity
) -> None:
    settings = SharedSettings(
        credentials="on",
        credentials_signer=agent(tmp_path, identity.key),
        credentials_certificates=identity.certificates,
    )
    credentials = open_credentials(settings, storage, Redis.from_url(redis_url))
    assert credentials is not None
    file = encode_image(Image.new("RGB", (32, 32), "red"))
    (tmp_path / "a.png").write_bytes(credentials.sign(file, "png", RECEIPT, "0" * 64, None))
    found = verify(tmp_path / "a.png", None)
    assert (found.verdict, found.problems) == ("intact", ())
    (tmp_path / "key.pem").unlink()
    with pytest.raises(RuntimeError, match="could not be signed"):
        credentials.sign(file, "png", RECEIPT, "0" * 64, None)


def test_a_signer_that_cannot_sign_for_the_certificate_is_told_at_the_start(
    tmp_path: Path, identity: Identity, storage: LocalStorage
) -> None:
    storage.delete(DEVELOPMENT_KEY)
    other = agent(tmp_path, development_identity(storage, nullcontext).key)
    for command, told in (
        (other, "it signs with another key than the first certificate's"),
        ("/nowhere/agent", "it could not sign: .*No such file"),
        ("false", "it could not sign: false ended with status 1: no signature"),
        ("echo x", "it could not sign"),
        ("entry:ours", "no installed package has a signer ours"),
    ):
        settings = SharedSettings(
            credentials="on", credentials_signer=command, credentials_certificates=identity.certificates
        )
        with pytest.raises(SettingsError, match=f"^DARKROOM_CREDENTIALS_SIGNER and .*: {told}"):
            check_credentials(settings)


def test_images_of_the_named_api_keys_are_signed_and_of_no_others(storage: LocalStorage, redis_url: str) -> None:
    def signs_for(*api_keys: str) -> list[bool]:
        settings = SharedSettings(credentials="on", credentials_api_keys=list(api_keys))
        credentials = open_credentials(settings, storage, Redis.from_url(redis_url))
        assert credentials is not None
        return [credentials.signs_for(key) for key in ("one", "two", "anonymous")]

    assert signs_for() == [True, True, True]
    assert signs_for("one") == [True, False, False]
    assert signs_for("two", "anonymous") == [False, True, True]
