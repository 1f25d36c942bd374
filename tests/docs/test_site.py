"""The site: every page has its place, every link its target, and reference pages name what the code has."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.jobs.failures import FailureCode
from contracts.requests.schema import REQUESTS
from docs.site import collect
from docs.site.drawing import draw
from worker.settings import WorkerSettings

CONFIGURATION = Path(collect.__file__).with_name("zensical.toml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    collect.collect(folder / "docs")
    shutil.copyfile(CONFIGURATION, folder / "zensical.toml")
    return folder


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", "zensical.toml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def entries(part: Any) -> Iterator[str]:
    """Pages of the navigation."""
    if isinstance(part, str):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from entries(inner)


def test_every_page_is_in_the_navigation_once(folder: Path) -> None:
    navigation = list(entries(tomllib.loads(CONFIGURATION.read_text(encoding="utf-8"))["project"]["nav"]))
    pages = [path.relative_to(folder / "docs").as_posix() for path in (folder / "docs").rglob("*.md")]
    assert sorted(navigation) == sorted(pages)


def test_a_wrong_link_stops_the_build(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    page = tmp_path / "copy" / "docs" / "glossary.md"
    page.write_text(page.read_text(encoding="utf-8") + "\n[away](nowhere.md)\n", encoding="utf-8")
    stopped = build(tmp_path / "copy")
    assert stopped.returncode != 0
    assert "page does not exist" in stopped.stderr


def test_the_site_is_built_and_loads_nothing_from_another_host(folder: Path) -> None:
    assert build(folder).returncode == 0
    for page in (folder / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'src="http' not in text, page
        assert 'rel="stylesheet" href="http' not in text, page


def test_the_reference_names_every_field_setting_and_code() -> None:
    pages = collect.reference_pages()
    assert all(
        f"| `{field}` |" in pages["requests.md"] for kind in REQUESTS.values() for field in kind.model_fields
    )
    names = [
        f"DARKROOM_WORKER_{name.upper()}"
        for name, field in WorkerSettings.model_fields.items()
        if field.description
    ]
    assert [name for name in names if f"`{name}`" not in pages["settings.md"]] == []
    assert all(f"`{code}`" in pages["errors.md"] for code in FailureCode)
    assert "## darkroom generate" in pages["command-line.md"]


def test_the_drawing_has_every_room_and_refuses_an_import_that_it_cannot_show(tmp_path: Path) -> None:
    drawing = draw(collect.ROOT)
    assert all(f">{room}/</text>" in drawing for room in ("submission", "engine", "leases", "supervisor"))
    for package in ("app", "worker", "dispatcher", "cli", "contracts"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f'"""{package}"""\n', encoding="utf-8")
    (tmp_path / "app" / "main.py").write_text("from worker.pool import pool\n", encoding="utf-8")
    with pytest.raises(ValueError, match="only contracts may be imported"):
        draw(tmp_path)


def test_a_page_may_not_link_to_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[gone](../app/gone.py)", encoding="utf-8")
    for name in ("deploy/README.md", "bench/README.md", "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    monkeypatch.setattr(collect, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=r"docs/index\.md links to \.\./app/gone\.py"):
        collect.collect(tmp_path / "build")
