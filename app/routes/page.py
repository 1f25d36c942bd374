"""The routes of Darkroom's own page. Browsers get it at `/`; clients of the API get a 404 there."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from app.dependencies.services import services_of
from app.page.files import page_headers, read_files
from app.services import Services

router = APIRouter(include_in_schema=False)

_HTML = "text/html"
_JSON = frozenset({"application/json", "application/problem+json"})
#: Validity of the link from which the bucket's origin is read; nobody follows it.
_LINK_SECONDS = 60


@router.get("/")
def show_page(request: Request) -> Response:
    """The page, for who asks for HTML; 404 for others, as for any path without a route."""
    if not _prefers_html(request.headers.get("accept", "")):
        raise HTTPException(HTTPStatus.NOT_FOUND, headers={"Vary": "Accept"})
    return _answer("index.html", request)


@router.get("/page/{name:path}")
def show_page_file(name: str, request: Request) -> Response:
    """A file that the page loads."""
    return _answer(name, request)


def _answer(name: str, request: Request) -> Response:
    file = read_files().get(name)
    if file is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    headers = {**page_headers(_bucket_origin(services_of(request))), "ETag": file.etag, "Vary": "Accept"}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(file.data, media_type=file.media_type, headers=headers)


def _bucket_origin(services: Services) -> str | None:
    """Where image downloads are redirected to; None where this service sends the images."""
    if not services.settings.redirect_images:
        return None
    link = services.storage.sign("images/0", _LINK_SECONDS)
    return None if link is None else "{0.scheme}://{0.netloc}".format(urlsplit(link))


def _prefers_html(accept: str) -> bool:
    """Whether `Accept` names HTML, and JSON not before it; `*/*` alone is what programs send."""
    qualities = {}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        qualities[kind] = next((_quality(one[2:]) for one in parameters if one.startswith("q=")), 1.0)
    best_json = max((quality for kind, quality in qualities.items() if kind in _JSON), default=0.0)
    return qualities.get(_HTML, 0.0) > 0 and qualities[_HTML] >= best_json


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
