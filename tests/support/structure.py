"""Prints how the tree is built, for comparing two checkouts: `python -m tests.support.structure [CHECKOUT]`.

Files in the longest row, import floors, lines, files that hold Redis keys as literals, and tests. It reads sources
without importing them; pytest counts the tests, in the checkout.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PRODUCT = ("app", "cli", "contracts", "dispatcher", "worker")
KEY = re.compile(r"""["'](?:darkroom|rq):[a-z]""")


def files(folder: Path, *suffixes: str) -> list[Path]:
    """Files below a folder with one of these suffixes."""
    return [path for path in sorted(folder.rglob("*")) if path.suffix in suffixes and path.is_file()]


def lines(paths: list[Path]) -> int:
    """How many lines they have together."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def longest_row(package: Path) -> tuple[int, str]:
    """Most Python files directly in one folder, `__init__.py` aside, and that folder."""
    rows = [
        (sum(path.name != "__init__.py" for path in folder.glob("*.py")), str(folder.relative_to(package.parent)))
        for folder in (package, *(path for path in package.rglob("*") if path.is_dir()))
    ]
    return max(rows)


@cache
def imported(source: str) -> frozenset[str]:
    """Dotted names that a module imports anywhere; `from a import b` gives `a` and `a.b`."""
    names: set[str] = set()
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
    return frozenset(names)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All statements at every depth, without their expressions, which are most of a tree."""
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        for node in getattr(tree, block, ()):
            yield node
            yield from _statements(node)


def graph(package: Path) -> dict[str, set[str]]:
    """What each entry of a package, a module or a subpackage, imports of the package's other entries."""
    entries = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    edges: dict[str, set[str]] = {name: set() for name in entries - {"__init__"}}
    for path in files(package, ".py"):
        entry = path.relative_to(package).parts[0].removesuffix(".py")
        for name in imported(path.read_text(encoding="utf-8")):
            parts = name.split(".")
            if (
                parts[0] == package.name
                and len(parts) > 1
                and entry in edges
                and parts[1] in edges.keys() - {entry}
            ):
                edges[entry].add(parts[1])
    return edges


def floors(edges: dict[str, set[str]]) -> str:
    """Entries on the longest way down, or the entries of an import cycle."""
    going: list[str] = []

    @cache
    def height(entry: str) -> int:
        if entry in going:
            raise RecursionError(" > ".join([*going[going.index(entry) :], entry]))
        going.append(entry)
        found = 1 + max((height(other) for other in sorted(edges[entry])), default=0)
        going.pop()
        return found

    try:
        return str(max(map(height, sorted(edges))))
    except RecursionError as error:
        return f"cycle: {error}"


def count_tests(checkout: Path) -> int:
    """Tests that `make test` runs."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    found = re.search(r"^(\d+) tests collected", done.stdout, re.MULTILINE)
    return int(found[1]) if found else 0


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkout", type=Path, nargs="?", default=Path(), help="(this directory)")
    checkout = parser.parse_args().checkout.resolve()
    print("| package | entries | floors | longest row | its folder | lines |\n|---|---|---|---|---|---|")
    for name in PRODUCT:
        package = checkout / name
        edges, (row, folder) = graph(package), longest_row(package)
        total = lines(files(package, ".py", ".lua"))
        print(f"| {name} | {len(edges)} | {floors(edges)} | {row} | {folder} | {total} |")
    sources = [path for name in PRODUCT for path in files(checkout / name, ".py", ".lua")]
    literals = [path for path in sources if KEY.search(path.read_text(encoding="utf-8"))]
    print("\n| | |\n|---|---|")
    print(f"| lines of the product | {lines(sources)} |")
    for name in ("bench", "counting", "tests"):
        print(f"| lines of {name}/ | {lines(files(checkout / name, '.py'))} |")
    print(f"| files with Redis keys as literals | {len(literals)} |")
    print(f"| tests | {count_tests(checkout)} |")


if __name__ == "__main__":
    main()
