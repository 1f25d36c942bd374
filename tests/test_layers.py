"""The import law: `app`, `worker`, `dispatcher` import `contracts`, never each other; an import has no effect.

And the lists of rooms, in packages and in docs/architecture.md: each file and folder is in them, and nothing else.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.structure import PRODUCT, floors, graph, imported

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate"}
WEB = {"fastapi", "starlette", "uvicorn"}
FORBIDDEN = {
    "app": {"worker", "dispatcher", "cli", "models"} | HEAVY,
    "worker": {"app", "dispatcher", "cli"} | WEB,
    "dispatcher": {"app", "worker", "cli", "models"} | HEAVY | WEB,
    "contracts": {"app", "worker", "dispatcher", "cli", "models"} | HEAVY | WEB,
    "cli": {"app", "worker", "dispatcher"} | HEAVY | WEB,
}


def offences(package: str, folder: Path) -> list[str]:
    """Top-level packages that modules import anywhere, inside functions too, and must not."""
    return [
        f"{path.relative_to(folder)} imports {name}"
        for path in sorted(folder.rglob("*.py"))
        for name in sorted(packages_of(path) & FORBIDDEN[package])
    ]


def packages_of(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_each_side_imports_only_what_it_may(package: str) -> None:
    assert list((ROOT / package).rglob("*.py")), f"{package}/ holds no module"
    assert offences(package, ROOT / package) == []


@pytest.mark.parametrize("package", PRODUCT)
def test_the_rooms_of_a_package_form_no_cycle(package: str) -> None:
    assert floors(graph(ROOT / package)).isdecimal()


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("app", "import torch"),
        ("app", "from worker.generation.generate import run"),
        ("worker", "def late():\n    import fastapi"),
        ("contracts", "from diffusers.utils import logging"),
        ("dispatcher", "import app.settings"),
    ],
)
def test_a_broken_law_is_found(tmp_path: Path, package: str, line: str) -> None:
    (tmp_path / "module.py").write_text(line, encoding="utf-8")
    assert len(offences(package, tmp_path)) == 1


#: A line that imports a module of the tests, and which.
_FROM_TESTS = re.compile(r"^\s*(?:from|import) (tests\.[\w.]+)", re.MULTILINE)


def borrowed(path: str, source: str) -> list[str]:
    """Modules of tests that a test at `path` must not import: test files, conftests, another suite's parts."""
    suite = path.split("/")[1]
    return [
        name
        for name in _FROM_TESTS.findall(source)
        if name.rpartition(".")[2].startswith(("test_", "conftest"))
        or name.split(".")[1] not in ("support", suite)
    ]


def test_tests_share_parts_through_tests_support_only() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        relative = path.relative_to(ROOT).as_posix()
        assert borrowed(relative, path.read_text(encoding="utf-8")) == [], relative


@pytest.mark.parametrize(
    "line",
    [
        "from tests.cli.conftest import order",
        "from tests.cli.test_keys import run",
        "import tests.app.routes.test_jobs",
        "from tests.chaos.monkey import Monkey",
    ],
)
def test_a_part_borrowed_from_another_suite_is_found(line: str) -> None:
    assert len(borrowed("tests/cli/test_plan.py", line)) == 1


#: Imports all modules of the named packages; says which of the others are imported then, and exits.
IMPORT_ALL = """
import importlib, pkgutil, sys
for name, unwanted in {rules!r}:
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, name + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    if unwanted & set(sys.modules):
        sys.exit(f"{{name}}: {{sorted(unwanted & set(sys.modules))}}")
"""


def test_the_http_side_never_loads_torch_and_the_command_line_no_web_framework_even_indirectly() -> None:
    rules = [*((name, HEAVY | WEB) for name in ("contracts", "cli", "dispatcher")), ("app", HEAVY)]
    program = IMPORT_ALL.format(rules=rules)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


#: A line of a list: the name of a file or folder, and what it is for.
_ENTRY = re.compile(r"^(\w+\.py|\w+/) +\S", re.MULTILINE)
#: A file that a line of the list also names, in backquotes.
_ALSO = re.compile(r"`(\w+\.py)`")


def packages() -> list[Path]:
    return sorted(init.parent for name in PRODUCT for init in (ROOT / name).rglob("__init__.py"))


def content(folder: Path) -> set[str]:
    files = {path.name for path in folder.glob("*.py")} - {"__init__.py", "__main__.py"}
    return files | {f"{path.name}/" for path in folder.iterdir() if any(path.glob("*.py"))}


@pytest.mark.parametrize("folder", packages(), ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_package_lists_its_files_and_folders(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    listed = set(_ENTRY.findall(text))
    if not listed:
        return  # many of one kind, or one file: the sentence is enough
    present = content(folder)
    assert present - listed - set(_ALSO.findall(text)) == set(), "are not listed"
    assert {name for name in listed - present if not (folder / name).exists()} == set(), "do not exist"


def tree() -> Iterator[tuple[str, str]]:
    """The folders in the documentation's tree: package and subpackage, or package and nothing."""
    package = ""
    block = (
        (ROOT / "docs" / "architecture.md")
        .read_text(encoding="utf-8")
        .partition("## Where things live")[2]
        .split("```")[1]
    )
    for line in block.splitlines():
        if found := re.match(r"( *)(\w+)/", line):
            package = package if found[1] else found[2]
            yield package, found[2] if found[1] else ""


def test_the_tree_in_the_documentation_is_the_tree() -> None:
    drawn = set(tree())
    assert {(package, name) for package, name in drawn if not (ROOT / package / name).is_dir()} == set()
    for package in ("app", "contracts", "worker"):
        rooms = {name.rstrip("/") for name in content(ROOT / package) if name.endswith("/")}
        assert {name for top, name in drawn if top == package} - {""} == rooms
