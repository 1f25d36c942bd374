"""The package of the Python client, with its generated types: what a type checker accepts and refuses.

`make test-clients` packs it first, into `build/clients`.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

BUILT = Path(__file__).parents[2] / "build" / "clients"
USE = """
from darkroom_client import Client, Event, Result

def show(event: Event) -> None:
    print(event.kind, event.fraction)

with Client("http://127.0.0.1:8000", key="KEY") as client:
    result: Result = client.run({"task": "txt2img", "prompt": "x", "seed": 7}, wait="stream", on_event=show)
    seeds: list[int | None] = [image["seed"] for image in result.job["images"]]
    client.run({"task": "img2img", "prompt": "x", "image": client.upload(b""), "loras": [{"name": "any"}]})
    client.run({"task": "txt2img", "prompt": "x", "widht": 64})  # no such field
    client.run({"prompt": "x"})  # no task
    client.run({"task": "img2img", "prompt": "x"})  # no image
    client.run({"task": "txt2img", "prompt": "x", "width": "64"})  # no number
    result.job["imgs"]  # no such field
"""


def test_requests_and_answers_are_typed(tmp_path: Path) -> None:
    (wheel,) = BUILT.glob("darkroom_client-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    (tmp_path / "use.py").write_text(USE, encoding="utf-8")

    command = [sys.executable, "-m", "mypy", "--config-file=", "--strict", "--python-version", "3.11"]
    checked = subprocess.run(
        [*command, "--no-error-summary", "use.py", "darkroom_client"], cwd=tmp_path, capture_output=True, text=True
    )

    wrong = [number for number, line in enumerate(USE.splitlines(), 1) if "# no " in line]
    found = [line.split(":")[:2] for line in checked.stdout.splitlines() if ": error:" in line]
    assert found == [["use.py", str(number)] for number in wrong], checked.stdout + checked.stderr
