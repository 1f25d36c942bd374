"""`openai` and Vercel's AI SDK, unmodified, against a running service. Needs node, npm and its registry."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.images import encode_image, mask_with_hole, solid_image
from tests.support.running_service import RunningService

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed packages, the scripts, and an image with a mask."""
    client = tmp_path_factory.mktemp("client")
    for name in ("package.json", "images.mjs", "ai_sdk.mjs"):
        shutil.copy(HERE / name, client)
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(install, cwd=client, check=True)
    (client / "image.png").write_bytes(encode_image(solid_image("blue")))
    (client / "mask.png").write_bytes(encode_image(mask_with_hole()))
    return client


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A running service."""
    service = RunningService(tmp_path_factory.mktemp("service") / "data")
    yield service
    service.stop()


def checks_of(script: str, folder: Path, service: RunningService) -> list[str]:
    """Run a script; returns its lines of output."""
    run = subprocess.run(
        ["node", script, "image.png", "mask.png"],
        cwd=folder,
        env={**os.environ, "OPENAI_BASE_URL": f"{service.url}/v1", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.splitlines()


def test_the_npm_client_generates_streams_edits_and_reads_errors(folder: Path, service: RunningService) -> None:
    names = ("generates", "streams", "edits", "fails", "lists", "runsBatches")

    assert checks_of("images.mjs", folder, service) == [f"{name}: ok" for name in names]
    edited = Image.open(folder / "edited.png").convert("RGB")
    assert edited.getpixel((2, 2)) == (0, 0, 255)


def test_vercels_ai_sdk_generates_edits_and_reads_errors(folder: Path, service: RunningService) -> None:
    names = ("generates", "edits", "refuses")

    assert checks_of("ai_sdk.mjs", folder, service) == [f"{name}: ok" for name in names]
