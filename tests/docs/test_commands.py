"""The commands of the documentation, as a reader would type them, against a running service.

A block of `sh` is run unless a comment before it says why not: `<!-- not run: REASON -->`. A block after
`<!-- file: NAME -->`, or of TOML that begins with its file's name, is written to that file first.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.running_service import RunningService

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run|file): (?P<text>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<body>.*?)^```$",
    re.M | re.S,
)
SECONDS = 120


class Block(NamedTuple):
    """A block of code: what is done with it, and its text. `name` is a file's, or why it is not run."""

    kind: str
    name: str
    body: str


def blocks(page: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(page):
        body, named = match["body"], re.match(r"# (\S+\.toml)\n", match["body"])
        if match["mark"]:
            found.append(Block(match["mark"], match["text"], body))
        elif named:
            found.append(Block("file", named[1], body))
        elif match["language"] == "sh":
            found.append(Block("run", "", body))
    return found


PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if any(block.kind == "run" for block in blocks(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_do_what_it_says(page: str, service: RunningService, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DARKROOM_SERVER": service.url,
        "PYTHONPATH": str(ROOT / "clients" / "python"),  # what `pip install` of a release does
    }
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        text = block.body.replace("http://127.0.0.1:8000", service.url)
        if block.kind == "file":
            (tmp_path / block.name).write_text(text, encoding="utf-8")
        elif block.kind == "run":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{block.body}\n{done.stdout}\n{done.stderr}"


def test_a_block_is_run_written_or_marked() -> None:
    page = """
```sh
ls
```
<!-- not run: needs a GPU -->
```sh
darkroom up
```
<!-- file: a.py -->
```python
print()
```
```toml
# catalogue.toml
x = 1
```
```console
$ ls
```
"""
    assert [(block.kind, block.name) for block in blocks(page)] == [
        ("run", ""),
        ("not run", "needs a GPU"),
        ("file", "a.py"),
        ("file", "catalogue.toml"),
    ]
