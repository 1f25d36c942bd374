"""Every domain error has a status, a stable code and one shape; no traceback reaches a client."""

from __future__ import annotations

import errno
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.requests import ClientDisconnect

from app import errors
from app.error_handlers import Problem, install, render_problem
from app.errors import (
    BodyTimeout,
    BodyTooLarge,
    Busy,
    Forbidden,
    HostRefused,
    JobDidNotComplete,
    JobStillRuns,
    NotReady,
    OriginRefused,
    Unauthorized,
    WrongMediaType,
    describe,
)
from app.middleware.request_id import RequestIdMiddleware
from app.openapi.document import DocumentedApi
from contracts import errors as domain
from contracts.catalogue.reader import read_catalogue
from contracts.errors import (
    AdapterRefused,
    Conflict,
    DailyLimitReached,
    FieldProblem,
    Gone,
    ImageTooLarge,
    InvalidRequest,
    LinkRefused,
    ModelUnavailable,
    NotAnImage,
    NotFound,
    QueueFull,
    QuotaExceeded,
    RateExceeded,
    RecordQuotaExceeded,
    StorageFull,
    TooManyImages,
    TooManyJobs,
    TryLater,
    Unavailable,
    UnreadableBody,
)
from contracts.settings import BUILT_IN_CATALOGUE

WIDTH = FieldProblem("width", "must be a multiple of 8, got 65", [64, 72])

CASES = [
    (UnreadableBody("not JSON"), 400, "unreadable_body", []),
    (ClientDisconnect(), 400, "unreadable_body", []),
    (NotFound("job", "abc"), 404, "not_found", []),
    (QueueFull("9 jobs are waiting", 7), 429, "queue_full", []),
    (DailyLimitReached("9 images", "9", 7), 429, "daily_limit_reached", []),
    (TooManyJobs(9, 7), 429, "too_many_jobs", []),
    (RateExceeded(9, 7), 429, "rate_exceeded", []),
    (Unauthorized("no key"), 401, "unauthorized", []),
    (Forbidden("admin"), 403, "forbidden", []),
    (LinkRefused("expired"), 403, "link_refused", []),
    (Gone("job", "abc", "local"), 410, "gone", []),
    (OriginRefused("a page"), 403, "origin_refused", []),
    (HostRefused("a host"), 421, "host_refused", []),
    (BodyTimeout("too slow"), 408, "body_timeout", []),
    (Conflict("job abc is already failed"), 409, "conflict", []),
    (BodyTooLarge("too much"), 413, "body_too_large", []),
    (ImageTooLarge("image", "too wide", "≤ 9"), 413, "picture_too_large", ["image"]),
    (NotAnImage("mask_image", "not an image"), 415, "not_a_picture", ["mask_image"]),
    (WrongMediaType("text"), 415, "unsupported_media_type", []),
    (AdapterRefused("the file contains no LoRA weights"), 422, "adapter_refused", []),
    (InvalidRequest([WIDTH]), 422, "invalid_request", ["width"]),
    (TooManyImages(2), 503, "too_many_images", []),
    (ModelUnavailable("model", "m cannot be loaded", 60), 503, "model_unavailable", ["model"]),
    (Busy("too many bytes"), 503, "busy", []),
    (Unavailable("Redis does not answer"), 503, "unavailable", []),
    (NotReady([FieldProblem("redis", "away")]), 503, "not_ready", ["redis"]),
    (StorageFull("the storage is full"), 507, "storage_full", []),
    (QuotaExceeded(8, 9), 507, "quota_exceeded", []),
    (RecordQuotaExceeded(8, 9), 507, "quota_exceeded", []),
    (OSError(errno.ENOSPC, "a path"), 507, "storage_full", []),
    (JobDidNotComplete("job x failed: too large", "out_of_memory"), 502, "out_of_memory", []),
    (JobStillRuns("job x is running"), 504, "still_running", []),
    (RuntimeError("a secret"), 500, "internal", []),
]


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = DocumentedApi(read_catalogue(BUILT_IN_CATALOGUE), dict, title="test")
    app.add_middleware(RequestIdMiddleware)
    install(app, [])

    @app.get("/raise/{number}")
    def fail(number: int) -> None:
        raise CASES[number][0]

    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_an_error_becomes_a_problem(client: TestClient, subtests: pytest.Subtests) -> None:
    for number, (error, status, code, fields) in enumerate(CASES):
        with subtests.test(error=type(error).__name__):
            problem = _problem(client, number, status, code, fields)
            if not isinstance(error, RuntimeError | ClientDisconnect | OSError):
                assert problem["detail"] == str(error)


def _problem(client: TestClient, number: int, status: int, code: str, fields: list[str]) -> dict[str, Any]:
    """The answer where this error is raised, which has all parts of a problem."""
    response = client.get(f"/raise/{number}", headers={"X-Request-ID": "mine"})

    problem: dict[str, Any] = response.json()
    assert response.status_code == problem["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["code"] == code
    assert problem["type"] == f"urn:darkroom:problem:{code}"
    assert problem["title"]
    assert [entry["field"] for entry in problem["errors"]] == fields
    assert problem["request_id"] == response.headers["X-Request-ID"] == "mine"
    assert ("Retry-After" in response.headers) == (status in (429, 503) or code == "storage_full")
    assert problem.keys() == Problem.model_fields.keys()
    return problem


def test_every_error_that_a_request_can_raise_has_a_row() -> None:
    never_over_http = {
        domain.DarkroomError,
        TryLater,
        domain.CatalogueError,
        domain.DestinationRefused,
        domain.DestinationUnknown,
        domain.SettingsError,
    }
    kinds = {
        kind
        for module in (domain, errors)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, domain.DarkroomError)
    }
    assert kinds - never_over_http <= errors.ROWS.keys()
    # A job that did not complete has its own failure code.
    assert {case[2] for case in CASES} == {row.code for row in errors.ROWS.values()} - {"job_failed"} | {
        "out_of_memory"
    }


def test_allowed_values_are_listed_only_where_there_are_any(client: TestClient) -> None:
    problem = describe(InvalidRequest([WIDTH, FieldProblem("x", "unknown")]))
    response = render_problem(problem, "1")

    assert b'"allowed":[64,72]' in response.body
    assert bytes(response.body).count(b'"allowed"') == 1


def test_an_internal_error_is_logged_and_its_details_are_hidden_from_the_client(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.get(f"/raise/{len(CASES) - 1}")

    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert "a secret" in caplog.text
    assert response.json()["request_id"] in caplog.text


def test_an_unknown_path_is_a_problem(client: TestClient) -> None:
    response = client.get("/nowhere")

    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.json()["detail"] == "no route matches /nowhere; /docs lists all routes"


def test_a_method_that_is_not_allowed_is_a_problem(client: TestClient) -> None:
    response = client.delete("/raise/1")

    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS"
    assert response.json()["detail"] == "DELETE is not a method of /raise/1; allowed: GET, HEAD, OPTIONS"


def test_a_wrong_parameter_is_named(client: TestClient) -> None:
    problem = client.get("/raise/x").json()

    assert (problem["status"], problem["errors"][0]["field"]) == (422, "number")
    assert problem["errors"][0]["message"] == "must be a whole number, got 'x'"


def test_the_size_of_an_error_response_is_limited() -> None:
    many = InvalidRequest([FieldProblem("x" * 10_000, "y" * 10_000)] * 1000)

    assert len(render_problem(describe(many), "1").body) < 150_000
