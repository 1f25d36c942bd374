"""openapi-typescript makes types of the document without a warning, and requests of two fields compile with them.

Needs node, npm and its registry.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from app.main import create_app
from app.settings import ApiSettings

HERE = Path(__file__).parent


def test_types_are_generated_without_a_warning_and_small_requests_compile(tmp_path: Path) -> None:
    for name in ("package.json", "requests.ts"):
        shutil.copy(HERE / name, tmp_path)
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(install, cwd=tmp_path, check=True)
    (tmp_path / "openapi.json").write_text(json.dumps(create_app(ApiSettings()).openapi()), encoding="utf-8")

    generate = ["node_modules/.bin/openapi-typescript", "openapi.json", "--output", "darkroom.d.ts"]
    made = subprocess.run(generate, cwd=tmp_path, capture_output=True, text=True)

    assert made.returncode == 0, made.stdout + made.stderr
    assert "warn" not in (made.stdout + made.stderr).lower()
    options = [
        "--noEmit",
        "--strict",
        "--module",
        "nodenext",
        "--moduleResolution",
        "nodenext",
        "--target",
        "es2022",
    ]
    checked = subprocess.run(
        ["node_modules/.bin/tsc", *options, "requests.ts"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout) == (0, "")
