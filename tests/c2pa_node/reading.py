"""Images that Darkroom signed, read by npm's c2pa package. Needs node, npm and its registry."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from contracts.provenance.credentials import ContentCredentials
from contracts.provenance.identity import development_identity
from contracts.provenance.roots import DEVELOPMENT_KEY, last_certificate
from contracts.storage.local import LocalStorage
from tests.support.images import encode_image

HERE = Path(__file__).parent
IMAGE = Image.effect_noise((96, 64), 60).convert("RGB")
RECEIPT = {"seed": 7, "parameters": {"task": "txt2img", "prompt": "a red circle"}}
SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package and the script."""
    client = tmp_path_factory.mktemp("client")
    for name in ("package.json", "read.mjs"):
        shutil.copy(HERE / name, client)
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(install, cwd=client, check=True)
    return client


def read(folder: Path, storage: LocalStorage, *files: str) -> list[dict[str, Any]]:
    """What npm's package finds in each file."""
    (folder / "root.pem").write_text(last_certificate(storage.read(DEVELOPMENT_KEY).decode()))
    command = ["node", "read.mjs", "root.pem", *files]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_npms_package_trusts_every_format_and_finds_every_change(folder: Path, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("inputs/source.png", encode_image(IMAGE))
    credentials = ContentCredentials(lambda: development_identity(storage, nullcontext), storage, "1", "text")
    files = []
    for kind in ("png", "jpeg", "webp"):
        files.append(f"image.{kind}")
        plain = folder / f"plain.{kind}"
        IMAGE.save(plain)
        (folder / files[-1]).write_bytes(credentials.sign(plain.read_bytes(), kind, RECEIPT, "0" * 64, None))
    made = credentials.sign(encode_image(IMAGE), "png", RECEIPT, "0" * 64, "inputs/source.png")
    (folder / "edited.png").write_bytes(made)
    changed = bytearray((folder / "image.jpeg").read_bytes())
    changed[-20] ^= 1
    (folder / "changed.jpeg").write_bytes(changed)

    found = read(folder, storage, *files, "edited.png", "changed.jpeg")

    created = {
        "action": "c2pa.created",
        "source": SOURCES + "trainedAlgorithmicMedia",
        "seed": 7,
        "ingredients": 0,
    }
    assert found[:3] == [{"state": "Trusted", "codes": [], **created}] * 3
    assert found[3]["state"] == "Trusted"
    assert (found[3]["action"], found[3]["ingredients"]) == ("c2pa.edited", 1)
    assert found[3]["source"] == SOURCES + "compositeWithTrainedAlgorithmicMedia"
    assert (found[4]["state"], found[4]["codes"]) == ("Invalid", ["assertion.dataHash.mismatch"])
