"""Lets pages of other origins use the API, where the operator names them: which methods and headers (CORS)."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.middleware.request_id import HEADER

_METHODS = ("GET", "HEAD", "POST", "DELETE")
#: Headers of responses that a page may read, besides those that browsers always show.
_EXPOSED = (
    "Location",
    "Retry-After",
    "ETag",
    HEADER,
    "Preference-Applied",
    "Idempotency-Replayed",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Should-Retry",
    "WWW-Authenticate",
    "Accept-Encoding",
    "Allow",
)


def allow_origins(app: FastAPI, origins: list[str]) -> None:
    """Answer preflights of these origins, and let their pages read responses; without any, do nothing.

    Credentials stay disallowed: the service uses no cookies, and a page sends its API key in a header.
    """
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=["*"],  # clients of OpenAI send a dozen of their own
            allow_private_network=True,
            expose_headers=_EXPOSED,
        )
