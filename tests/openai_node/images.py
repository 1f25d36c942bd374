"""Drives a running service with the unmodified `openai` package from npm. Needs node, npm and its registry."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from PIL import Image

from tests.support.images import encode_image, mask_with_hole, solid_image
from tests.support.running_service import RunningService

HERE = Path(__file__).parent


def test_the_npm_client_generates_streams_edits_and_reads_errors(tmp_path: Path) -> None:
    client = tmp_path / "client"
    client.mkdir()
    for name in ("package.json", "images.mjs"):
        shutil.copy(HERE / name, client)
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(install, cwd=client, check=True)
    (client / "image.png").write_bytes(encode_image(solid_image("blue")))
    (client / "mask.png").write_bytes(encode_image(mask_with_hole()))
    service = RunningService(tmp_path / "data")
    try:
        run = subprocess.run(
            ["node", "images.mjs", "image.png", "mask.png"],
            cwd=client,
            env={**os.environ, "OPENAI_BASE_URL": f"{service.url}/v1", "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
    finally:
        service.stop()

    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines() == [
        f"{check}: ok" for check in ("generates", "streams", "edits", "fails", "lists")
    ]
    edited = Image.open(client / "edited.png").convert("RGB")
    assert edited.getpixel((2, 2)) == (0, 0, 255)
