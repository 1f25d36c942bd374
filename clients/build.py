"""Generates the types of both clients and packs them: `python -m clients.build [python|typescript …]`.

Works on copies in `build/clients`. Needs the generators, which
`make clients` installs, and for TypeScript node and npm.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from app.main import create_app
from app.settings import ApiSettings
from contracts.requests.schema import REQUESTS

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build" / "clients"
GENERATORS = ROOT / "build" / "generators" / "bin"


def document() -> dict[str, Any]:
    """The OpenAPI document as the clients use it: they send every job to `/v1/jobs`, where `task` is required."""
    made = create_app(ApiSettings()).openapi()
    for kind in REQUESTS.values():
        made["components"]["schemas"][kind.__name__].setdefault("required", []).append("task")
    return made


def build_python(folder: Path, version: str) -> None:
    """Make the package in `folder`, with its types and version, and a wheel of it."""
    package = folder / "darkroom_client"
    run(
        [GENERATORS / "datamodel-codegen", "--input", "../openapi.json", "--input-file-type", "openapi",
         "--output", package / "schema.py", "--output-model-type", "typing.TypedDict",
         "--target-python-version", "3.11", "--use-standard-collections", "--use-union-operator",
         "--enum-field-as-literal", "all", "--use-schema-description", "--disable-timestamp",
         "--formatters", "builtin", "--no-use-closed-typed-dict"],
        folder,
    )  # fmt: skip
    replace(package / "__init__.py", '__version__ = "0.0.0"', f'__version__ = "{version}"')
    # In the root, where the constraints are that the Makefile names.
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", TARGET, folder], ROOT)


def build_typescript(folder: Path, version: str) -> None:
    """Make the package in `folder`, with its types and version, compile it, and pack it."""
    replace(folder / "package.json", '"version": "0.0.0"', f'"version": "{version}"')
    run(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"], folder)
    run(["node_modules/.bin/openapi-typescript", "../openapi.json", "--output", "src/schema.ts"], folder)
    run(["node_modules/.bin/tsc"], folder)
    run(["npm", "pack", "--silent", "--pack-destination", TARGET], folder)


def replace(path: Path, old: str, new: str) -> None:
    """Replace text that is in a file."""
    text = path.read_text(encoding="utf-8")
    if old not in text:
        raise ValueError(f"{path} lacks {old}")
    path.write_text(text.replace(old, new), encoding="utf-8")


def run(command: list[str | Path], folder: Path) -> None:
    """Run a program in a folder; it must succeed."""
    subprocess.run(command, cwd=folder, check=True)  # noqa: S603  # our own programs


def main(languages: list[str]) -> None:
    """Build the clients in these languages; in all of them where none is named."""
    builders = {"python": build_python, "typescript": build_typescript}
    packages = {"python": "darkroom_client-*.whl", "typescript": "darkroom-client-*.tgz"}
    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / "openapi.json").write_text(json.dumps(document()), encoding="utf-8")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for language in languages or builders:
        folder = TARGET / language
        shutil.rmtree(folder, ignore_errors=True)
        for package in TARGET.glob(packages[language]):  # of another version
            package.unlink()
        ignored = shutil.ignore_patterns("__pycache__", "node_modules", "dist", "build", "*.egg-info")
        shutil.copytree(ROOT / "clients" / language, folder, ignore=ignored)
        builders[language](folder, version)


if __name__ == "__main__":
    main(sys.argv[1:])
