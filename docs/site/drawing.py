"""A drawing of the tree as SVG: a box for each package, a line for each of its rooms, an arrow for each import.

Names and sentences are the packages' own; the arrows are the imports that are in the source. Draws no module.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from html import escape
from pathlib import Path

#: Packages that do not import each other, two in a row, and the one below them that they all may import.
_UPPER, _BASE = (("app", "worker"), ("dispatcher", "cli")), "contracts"
_WIDTH, _ROOM, _HEAD, _GAP, _MARGIN = 480, 22, 50, 28, 28
#: Pixels from a room's name to its sentence, and characters of a sentence that fit behind it, and in a heading.
_INDENT, _ROOM_CHARACTERS, _HEAD_CHARACTERS = 104, 56, 68
_STYLE = (
    "text{font-family:system-ui,sans-serif;font-size:13px;fill:#1f2937}"
    ".name{font-size:16px;font-weight:600}.note{font-size:12px;fill:#4b5563}"
    "rect{fill:#f8fafc;stroke:#94a3b8}path.import{stroke:#475569;stroke-width:1.5;fill:none;marker-end:url(#tip)}"
)
_TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#475569"/></marker></defs>'
)


def draw(root: Path) -> str:
    """Return the SVG of the tree at `root`.

    Raises:
        ValueError: one of the upper packages imports another of them, which the drawing cannot show.
    """
    across = {name: found for row in _UPPER for name in row if (found := _imports(root / name) - {_BASE})}
    if across:
        raise ValueError(f"only {_BASE} may be imported, got {across}")
    columns = (_MARGIN, _MARGIN + _WIDTH + _GAP)
    parts, top = [], 8
    for row in _UPPER:
        height = _HEAD + _ROOM * max(len(_rooms(root / name)) for name in row)
        parts += [_box(root / name, x, top, _WIDTH, height, 1) for name, x in zip(row, columns, strict=True)]
        top += height + _GAP
    base = _HEAD + _ROOM * -(-len(_rooms(root / _BASE)) // 2)
    parts.append(_box(root / _BASE, columns[0], top, 2 * _WIDTH + _GAP, base, 2))
    right = columns[1] + _WIDTH
    parts += [
        f'<path class="import" d="M{columns[0]} 40 h-14 V{top + 30} h14"/>',
        f'<path class="import" d="M{right} 40 h14 V{top + 30} h-14"/>',
        *(f'<path class="import" d="M{x + _WIDTH // 2} {top - _GAP} V{top}"/>' for x in columns),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right + _MARGIN} {top + base + 8}" role="img">'
        f"<title>Packages, their rooms, and what they import</title><style>{_STYLE}</style>{_TIP}{''.join(parts)}"
        "</svg>\n"
    )


def _rooms(package: Path) -> Mapping[str, str]:
    """Folder -> the first line of its docstring."""
    return {path.parent.name: _sentence(path) for path in sorted(package.glob("*/__init__.py"))}


def _sentence(path: Path) -> str:
    return (
        (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0].replace("`", "")
    )


def _imports(package: Path) -> set[str]:
    """Other packages of the drawing that a package's modules import."""
    found: set[str] = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    return found & ({_BASE} | {name for row in _UPPER for name in row}) - {package.name}


def _box(package: Path, x: int, y: int, width: int, height: int, columns: int) -> str:
    """A package's box, its rooms in columns."""
    rooms = _rooms(package)
    rows = -(-len(rooms) // columns)
    lines = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>',
        f'<text class="name" x="{x + 12}" y="{y + 21}">{package.name}/</text>',
        _note(_sentence(package / "__init__.py"), _HEAD_CHARACTERS * columns, x + 12, y + 39),
    ]
    for index, (room, text) in enumerate(rooms.items()):
        left, line = x + 12 + index // rows * (width // columns), y + _HEAD + 14 + index % rows * _ROOM
        lines += [
            f'<text x="{left}" y="{line}">{room}/</text>',
            _note(text, _ROOM_CHARACTERS, left + _INDENT, line),
        ]
    return "".join(lines)


def _note(text: str, characters: int, x: int, y: int) -> str:
    """A sentence, cut off where it would leave its box."""
    text = text if len(text) <= characters else text[: characters - 1].rstrip(" ,.:;") + "…"
    return f'<text class="note" x="{x}" y="{y}">{escape(text)}</text>'
