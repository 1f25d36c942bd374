"""Collects the pages of the site in one folder, with links that are right there. Renders nothing.

Pages come from `docs/`, from a few files that live beside what they describe, and from the code.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from docs.site import api, operation
from docs.site.command_line import command_line_page
from docs.site.drawing import draw

ROOT = Path(__file__).resolve().parents[2]
#: Pages outside `docs/`: file -> page of the site.
_ELSEWHERE = {"deploy/README.md": "running.md", "bench/README.md": "figures.md", "CHANGELOG.md": "changelog.md"}
_ASSETS = (".png", ".webp", ".svg")
#: A Markdown link or image whose target is a file: what stands before, the path, and the fragment.
_LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?\)")


def collect(folder: Path) -> None:
    """Write all pages into a folder, which is emptied first.

    Raises:
        ValueError: a page links to a file that is not in the repository.
    """
    shutil.rmtree(folder, ignore_errors=True)
    sources = {path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").as_posix() for path in _pages()}
    sources |= _ELSEWHERE
    for source, page in sources.items():
        target = folder / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(_ASSETS):
            shutil.copyfile(ROOT / source, target)
        else:
            target.write_text(_relink(source, page, sources), encoding="utf-8")
    for page, text in reference_pages().items():
        target = folder / "reference" / page
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")
    (folder / "tree.svg").write_text(draw(ROOT), encoding="utf-8")


def _pages() -> list[Path]:
    """Pages and images of `docs/`, without the code that builds the site."""
    found = (ROOT / "docs").rglob("*")
    return sorted(path for path in found if path.suffix in (".md", *_ASSETS) and "site" not in path.parts)


def reference_pages() -> dict[str, str]:
    """Return the pages that are made from the code: file name -> text."""
    document = api.read_document()
    return {
        "requests.md": api.requests_page(document),
        "answers.md": api.answers_page(document),
        "routes.md": api.routes_page(document),
        "errors.md": api.errors_page(),
        "events.md": operation.events_page(),
        "settings.md": operation.settings_page(),
        "catalogue.md": operation.catalogue_page(),
        "metrics.md": operation.metrics_page(),
        "command-line.md": command_line_page(),
    }


def _relink(source: str, page: str, sources: dict[str, str]) -> str:
    """Return a page whose links to other pages are right in the site; links to other files become their names."""

    def link(found: re.Match[str]) -> str:
        before, path, fragment = found[1], found[2], found[3] or ""
        target = os.path.normpath(os.path.join(os.path.dirname(source), path))  # noqa: PTH118,PTH120  # as in a URL
        if target in sources:
            return f"{before}{os.path.relpath(sources[target], os.path.dirname(page) or '.')}{fragment})"  # noqa: PTH120
        if target.startswith(("docs/reference/", "docs/tree.svg")):
            return found[0]
        if not (ROOT / target).exists():
            raise ValueError(f"{source} links to {path}, which does not exist: {target}")
        return f"] (`{target}`)"

    text = (ROOT / source).read_text(encoding="utf-8")
    return re.sub(r"\[([^\]]*)\] \((`[^`]+`)\)", r"\1 (\2)", _LINK.sub(link, text))
