"""Puts what the benches have reported into `bench/README.md`, between marks: `python -m bench.page`.

The words around the figures are written by hand; read them again after every run.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.report import RESULTS

PAGE = Path(__file__).parent / "README.md"
BLOCK = re.compile(r"<!-- bench\.(\w+) -->\n.*?<!-- end -->", re.DOTALL)


def fill(page: str, folder: Path) -> str:
    """The page with the latest report of each bench that has run; the other blocks stay as they are."""

    def block(found: re.Match[str]) -> str:
        path = folder / f"{found[1]}.md"
        if not path.exists():
            return found[0]
        return f"<!-- bench.{found[1]} -->\n{path.read_text(encoding='utf-8').strip()}\n<!-- end -->"

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")
