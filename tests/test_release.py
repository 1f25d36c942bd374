"""What a release must agree on with itself."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_newest_release_in_the_changelog_is_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    newest = re.search(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_every_dependency_has_an_exact_version_in_the_constraints() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(row for rows in project["optional-dependencies"].values() for row in rows),
    ]
    names = {re.split(r"[<>=!~;\[ ]", row, maxsplit=1)[0].lower() for row in wanted}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    assert names - pinned == set()


def test_the_readme_names_only_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    paths = re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(r"`([a-z_]+/[a-z_./]+\.py)`", text)
    folder = ""
    for indent, name in re.findall(r"^( {0,2})([a-z_]+/) {2,}\S", text, re.MULTILINE):
        folder = folder if indent else name
        paths.append(folder + name if indent else name)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists()] == []
