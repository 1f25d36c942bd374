"""Puts what the benches have reported into `bench/README.md`, between marks: `python -m bench.page`.

The words around the figures are written by hand; read them again after every run.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.report import RESULTS

PAGE = Path(__file__).parent / "README.md"


def fill(page: str, folder: Path) -> str:
    """The page with the latest report of each bench that has run; the other blocks stay as they are."""
    for path in folder.glob("*.md"):
        text = path.read_text(encoding="utf-8").strip()
        block = re.compile(rf"(<!-- bench\.{path.stem} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        page = block.sub(lambda found, text=text: found[1] + text + found[2], page)  # type: ignore[misc]
    return page


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")
