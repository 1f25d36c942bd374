"""The package of the TypeScript client against a running service: `typescript.mjs`, and the example of the docs.

Needs node, npm and its registry. `make test-node` packs the client first, into `build/clients`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import encode_image, solid_image
from tests.support.running_service import RunningService

ROOT = Path(__file__).parents[2]
#: Lines that a type checker refuses.
WRONG = """
import { Darkroom } from "darkroom-client";
const client = new Darkroom("http://127.0.0.1:8000");
// @ts-expect-error: no such field
await client.run({ task: "txt2img", prompt: "x", widht: 64 });
// @ts-expect-error: no task
await client.run({ prompt: "x" });
// @ts-expect-error: no image
await client.run({ task: "img2img", prompt: "x" });
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client installed, as a user has it."""
    folder = tmp_path_factory.mktemp("typescript")
    (package,) = (ROOT / "build" / "clients").glob("darkroom-client-*.tgz")
    (folder / "package.json").write_text('{"private": true, "type": "module"}', encoding="utf-8")
    options = ["--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    wanted = [str(package), "typescript@5.9.3", "@types/node@20.19.43"]
    subprocess.run(["npm", "install", *options, *wanted], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    service = RunningService(tmp_path_factory.mktemp("service") / "data")
    yield service
    service.stop()


def run(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compile_file(path: Path, *options: str) -> None:
    strict = ["--strict", "--module", "nodenext", "--moduleResolution", "nodenext", "--target", "es2022"]
    run(["node_modules/.bin/tsc", *strict, "--types", "node", *options, path.name], path.parent)


def test_the_client_waits_resumes_cancels_and_reads_errors(folder: Path, service: RunningService) -> None:
    shutil.copy(Path(__file__).with_name("typescript.mjs"), folder)
    (folder / "image.png").write_bytes(encode_image(solid_image("blue")))

    shown = run(["node", "typescript.mjs", "image.png"], folder, DARKROOM_SERVER=service.url)

    checks = ("waits", "resumes", "polls", "retries", "cancels", "uploads", "fails", "verifies")
    assert shown.splitlines() == [f"{check}: ok" for check in checks]


def test_the_example_of_the_documentation_compiles_and_runs(folder: Path, service: RunningService) -> None:
    page = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```ts\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    path = folder / "circle.ts"
    path.write_text(example.replace("http://127.0.0.1:8000", service.url), encoding="utf-8")

    compile_file(path)
    run(["node", "circle.js"], folder)

    assert (folder / "circle.png").read_bytes()[1:4] == b"PNG"


def test_wrong_requests_do_not_compile(folder: Path) -> None:
    path = folder / "wrong.ts"
    path.write_text(WRONG, encoding="utf-8")

    compile_file(path, "--noEmit")
