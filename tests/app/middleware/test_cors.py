"""Pages of other origins: only those that the operator names may use the API, and read what they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore
from contracts.queue.client import JobQueue
from tests.support.requests import submit
from tests.support.scripted_worker import ScriptedWorker

STUDIO, OTHER = "https://studio.example.com", "https://evil.example"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,x-stainless-retry-count",
}
JOB = {"prompt": "a red circle"}


@pytest.fixture
def served(api_settings: ApiSettings) -> Iterator[Callable[..., TestClient]]:
    """Start an API with these settings; returns its client."""
    with ExitStack() as stack:

        def start(**changes: object) -> TestClient:
            app = create_app(api_settings.model_copy(update=changes))
            client: AbstractContextManager[TestClient] = TestClient(app, raise_server_exceptions=False)
            return stack.enter_context(client)

        yield start


def origin(name: str, **more: str) -> dict[str, str]:
    return {"Origin": name, "Sec-Fetch-Site": "cross-site", **more}


def test_without_the_setting_no_other_origin_is_let_in(served: Callable[..., TestClient]) -> None:
    client = served()

    assert "Access-Control-Allow-Origin" not in client.get("/v1/models", headers=origin(STUDIO)).headers
    assert "Access-Control-Allow-Origin" not in client.options("/v1/txt2img", headers=origin(STUDIO)).headers
    assert client.post("/v1/txt2img", json=JOB, headers=origin(STUDIO)).status_code == 403


def test_a_page_of_a_named_origin_makes_a_job_and_reads_its_events_and_images(
    served: Callable[..., TestClient], worker: ScriptedWorker
) -> None:
    client = served(cors_origins=[STUDIO])
    preflight = client.options("/v1/txt2img", headers=origin(STUDIO, **PREFLIGHT))
    made = client.post("/v1/txt2img", json=JOB, headers=origin(STUDIO))
    worker.complete(worker.claim())
    job = client.get(made.headers["Location"], headers=origin(STUDIO))
    events = client.get(job.json()["links"]["events"], headers=origin(STUDIO))
    image = client.get(job.json()["images"][0]["url"], headers=origin(STUDIO))

    assert (preflight.status_code, made.status_code) == (200, 202)
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert preflight.headers["Access-Control-Allow-Headers"] == PREFLIGHT["Access-Control-Request-Headers"]
    for response in (preflight, made, job, events, image):
        assert response.headers["Access-Control-Allow-Origin"] == STUDIO
        assert "Origin" in response.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in response.headers
    exposed = made.headers["Access-Control-Expose-Headers"]
    assert {"Location", "Retry-After", "ETag", "X-Request-ID"} <= set(exposed.split(", "))
    refused = client.post("/v1/txt2img", json={}, headers=origin(STUDIO))
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (422, STUDIO)


def test_a_page_of_another_origin_stays_out_beside_a_named_one(served: Callable[..., TestClient]) -> None:
    client = served(cors_origins=[STUDIO])

    assert client.options("/v1/txt2img", headers=origin(OTHER, **PREFLIGHT)).status_code == 400
    assert client.post("/v1/txt2img", json=JOB, headers=origin(OTHER)).status_code == 403
    assert "Access-Control-Allow-Origin" not in client.get("/v1/models", headers=origin(OTHER)).headers


def test_all_origins_may_use_a_service_with_keys_and_none_of_them_one_without(
    served: Callable[..., TestClient], queue: JobQueue
) -> None:
    client = served(cors_origins=["*"])
    assert client.post("/v1/txt2img", json=JOB, headers=origin(OTHER)).status_code == 403
    assert client.get("/v1/jobs", headers=origin(OTHER)).status_code == 403
    assert client.get("/v1/jobs").status_code == 200

    _, token = ApiKeyStore(queue.connection).create("page")
    client = served(cors_origins=["*"])
    answer = client.post("/v1/txt2img", json=JOB, headers=origin(OTHER, Authorization=f"Bearer {token}"))
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (202, "*")


@pytest.mark.parametrize(
    "text", ["studio.example.com", f"{STUDIO}/", f"{STUDIO}/app", "https://*.example.com", ""]
)
def test_what_is_not_an_origin_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValidationError, match="is not an origin"):
        ApiSettings(cors_origins=[text])


def test_a_preflight_leaves_nothing_behind(served: Callable[..., TestClient], queue: JobQueue) -> None:
    client = served(cors_origins=[STUDIO])
    before = set(queue.connection.keys("*"))
    client.options("/v1/txt2img", headers=origin(STUDIO, **PREFLIGHT))

    assert set(queue.connection.keys("*")) == before
    assert submit(client)["status"] == "queued"


def test_a_page_can_read_an_unexpected_error_which_is_logged_once(
    api_settings: ApiSettings, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(api_settings.model_copy(update={"cors_origins": [STUDIO]}))

    @app.get("/fails")
    def fail() -> None:
        raise RuntimeError("a defect")

    with TestClient(app, raise_server_exceptions=False) as client:
        responses = [client.request(method, "/fails", headers=origin(STUDIO)) for method in ("GET", "HEAD")]

    for response in responses:
        assert response.status_code == 500
        assert response.headers["Access-Control-Allow-Origin"] == STUDIO
        assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]
        assert caplog.text.count(f"request {response.headers['X-Request-ID']}: ") == 1
