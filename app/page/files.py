"""The page's files, and the headers that they are served with. Knows no route."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class PageFile:
    """One file.

    Attributes:
        etag: with its quotation marks.
    """

    data: bytes
    media_type: str
    etag: str


@cache
def read_files() -> Mapping[str, PageFile]:
    """All files by their paths below `static/`, read once; there are no others, whatever a request names."""
    return dict(_read(Path(str(files(__package__))) / "static"))


def _read(folder: Path) -> Iterator[tuple[str, PageFile]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            yield path.relative_to(folder).as_posix(), PageFile(data, _MEDIA_TYPES.get(path.suffix, _PLAIN), etag)


def page_headers(bucket_origin: str | None) -> dict[str, str]:
    """Headers of every file of the page.

    Only this service's scripts, styles and answers are let in: no script or style in the page, and no text that
    becomes markup except lit-html's own templates.

    Args:
        bucket_origin: where images are redirected to; None: this service sends them itself.
    """
    images = " ".join(("'self'", "data:", "blob:", *([] if bucket_origin is None else [bucket_origin])))
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": images,
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "lit-html",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
