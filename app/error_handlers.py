"""Every error as a response: RFC 9457 problem details, or the form of the dialect whose path was called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from app.errors import ClientLeft, Failure, describe
from app.middleware.public_url import path_in_api
from app.middleware.request_id import HEADER, request_id_of
from contracts.errors import MAX_PROBLEMS, DarkroomError

log = logging.getLogger(__name__)

#: Longest text of an error response; it may quote what the client sent.
_MAX_TEXT = 1000
#: That routes may have; HEAD and OPTIONS are answered for all of them.
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


class ProblemField(BaseModel):
    """One thing wrong with one field."""

    field: str = Field(description="Path of the field in the request, such as `controls.0.image`.")
    message: str = Field(description="What is wrong with it.")
    allowed: object = Field(
        None,
        exclude_if=lambda value: value is None,
        description="The values that would have been accepted, or their range as text; left out where "
        "they cannot be listed.",
    )


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(description="URI of the error: `urn:darkroom:problem:` and its code.")
    title: str = Field(description="Kind of error, for people; the same for every error of this code.")
    status: int = Field(description="HTTP status of the response.")
    detail: str = Field(description="What is wrong in this case, in a sentence.")
    code: str = Field(description="Stable identifier of the error, for programs.")
    errors: list[ProblemField] = Field(
        description="The fields that are wrong, up to 50; empty where the error is not about fields."
    )
    request_id: str = Field(description="Id of the request, by which the operator finds it in the log.")


def render_problem(failure: Failure, request_id: str) -> JSONResponse:
    """The response in the native dialect: RFC 9457 problem details."""
    details = Problem(
        type=f"urn:darkroom:problem:{failure.row.code}",
        title=failure.row.title,
        status=failure.row.status,
        detail=cut(failure.detail),
        code=failure.row.code,
        errors=[
            ProblemField(field=cut(problem.field), message=cut(problem.message), allowed=problem.allowed)
            for problem in failure.problems[:MAX_PROBLEMS]
        ],
        request_id=request_id,
    )
    return JSONResponse(
        details.model_dump(mode="json"),
        failure.row.status,
        headers={**failure.headers, HEADER: request_id},
        media_type="application/problem+json",
    )


def cut(text: str) -> str:
    """The text, shortened to the length that an error response may quote."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


@dataclass(frozen=True)
class Dialect:
    """Rendering of errors below a path prefix.

    Attributes:
        render: (failure, request id) -> response.
        media_type, model: of the response body, for the OpenAPI document.
        bodies: what the dialect's routes read and answer themselves, for the document as well.
    """

    prefix: str
    render: Callable[[Failure, str], JSONResponse]
    media_type: str
    model: type[BaseModel]
    bodies: tuple[type[BaseModel], ...] = ()


NATIVE = Dialect("/", render_problem, "application/problem+json", Problem)


def dialect_of(path: str, dialects: Sequence[Dialect]) -> Dialect:
    """The dialect in which errors at this path are rendered."""
    return next((dialect for dialect in dialects if path.startswith(dialect.prefix)), NATIVE)


class _NoResponse(Response):
    """Empty response: nothing is sent, and the access log shows that there was none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do nothing."""


async def _handle_left(request: Request, error: Exception) -> Response:
    del request, error
    return _NoResponse()


async def handle(request: Request, error: Exception) -> Response:
    """Render any error in the dialect of the request's path. Tracebacks go to the log only.

    A path's methods are its answer to OPTIONS, which no route has.
    """
    failure, request_id, path = describe(error), request_id_of(request), path_in_api(request.scope)
    if failure.row.status == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = _methods_at(request)
        if methods:
            detail = f"{request.method[:20]} is not a method of {path}; allowed: {', '.join(methods)}"
            failure = replace(failure, detail=detail, headers={"Allow": ", ".join(methods)})
        if methods and request.method == "OPTIONS":
            return Response(status_code=204, headers={**failure.headers, HEADER: request_id})
    if failure.row.status == HTTPStatus.NOT_FOUND and isinstance(error, HTTPException):
        failure = replace(failure, detail=f"no route matches {path}; /docs lists all routes")
    if failure.row.status == HTTPStatus.INTERNAL_SERVER_ERROR and not getattr(request.state, "is_logged", False):
        request.state.is_logged = True
        # The server logs the traceback itself; this line connects it to the request.
        log.error("request %s: %s %s failed: %r", request_id, request.method, path, error)
    return dialect_of(path, request.app.state.dialects).render(failure, request_id)


def _methods_at(request: Request) -> list[str]:
    """The methods at a request's path: those of all its routes, where the framework lists the first one's only."""
    routes: Sequence[BaseRoute] = request.app.routes
    found = {
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    }
    return sorted(found | ({"HEAD"} if "GET" in found else set()) | ({"OPTIONS"} if found else set()))


def install(app: FastAPI, dialects: Sequence[Dialect]) -> None:
    """Make `handle` the handler of every error. Middleware that is added later is outside of it."""
    # The framework's own handler of unexpected errors is outside of all middleware, so that its responses lack the
    # headers that these add: without CORS headers a page cannot read them.
    app.add_middleware(ServerErrorMiddleware, handler=handle)
    app.state.dialects = dialects
    for kind in (DarkroomError, HTTPException, RequestValidationError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, handle)
    app.add_exception_handler(ClientLeft, _handle_left)
