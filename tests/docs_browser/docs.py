"""`/docs` in Debian's Chromium: "Try it out" succeeds with the default example of every route, with no internet.

Needs Chromium (Debian's package `chromium`, or the path in CHROMIUM), node, npm and its registry.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.images import encode_image, solid_image
from tests.support.running_service import RunningService

HERE = Path(__file__).parent
LORA = HERE.parents[1] / "models" / "loras" / "shapes-sdxl-tint.safetensors"


@pytest.mark.timeout(900)
def test_try_it_out_succeeds_with_the_default_example_of_every_route(tmp_path: Path) -> None:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert chromium is not None, "needs Chromium: apt-get install chromium, or CHROMIUM=/path/to/it"
    for name in ("package.json", "try_it_out.mjs"):
        shutil.copy(HERE / name, tmp_path)
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(install, cwd=tmp_path, check=True)
    (tmp_path / "image.png").write_bytes(encode_image(solid_image("blue")))
    service = RunningService(tmp_path / "data")
    try:
        documented = service.http.get("/openapi.json").json()["paths"]
        run = subprocess.run(
            ["node", "try_it_out.mjs", f"{service.url}/docs", chromium, "image.png", str(LORA)],
            cwd=tmp_path,
            env={**os.environ, "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=840,
        )
    finally:
        service.stop()

    assert run.returncode == 0, run.stdout + run.stderr
    *calls, page = [json.loads(line) for line in run.stdout.splitlines()]
    assert [call for call in calls if not 200 <= call["status"] < 300] == []
    assert page == {"hosts": [service.url.removeprefix("http://")], "complaints": []}
    operations = {operation["operationId"] for methods in documented.values() for operation in methods.values()}
    assert {call["operation"] for call in calls} == operations
    forms = {call["operation"] for call in calls if call["mediaType"] == "multipart/form-data"}
    assert {"createUpload", "createLora", "editImage"} <= forms
