"""`/docs`: the OpenAPI document in Swagger UI, whose files come from this service and from nowhere else.

They are those of the PyPI package `fastapi-swagger`, which has Swagger UI's own files unchanged; its code is not
used. Knows nothing of the document.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse

#: Nothing is loaded from another host, and no script is part of the page. Swagger UI sets styles of its elements,
#: and shows images that it has downloaded.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_OUR_FILES = ("docs.js", "swagger-ui-license.txt")
_SWAGGER_UI_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")


def add_page(app: FastAPI) -> None:
    """Add the page and the files that it loads, which are below it."""
    own = Path(str(files(__package__)))
    _add_file(app, "/docs", own / "docs.html")
    for folder, names in ((own, _OUR_FILES), (_swagger_ui(), _SWAGGER_UI_FILES)):
        for name in names:
            _add_file(app, f"/docs/{name}", folder / name)


def _add_file(app: FastAPI, path: str, file: Path) -> None:
    async def show(request: Request) -> Response:
        del request
        return FileResponse(file, headers=_HEADERS)

    app.add_route(path, show, include_in_schema=False)


def _swagger_ui() -> Path:
    """Folder of Swagger UI's files, found without importing the package."""
    spec = find_spec("fastapi_swagger")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "fastapi-swagger, which has the files of /docs, is missing: pip install '.[api]'"
        )
    return Path(spec.origin).parent / "resources"
