"""Fixtures: the API on a real Redis and real files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import Storage
from contracts.uploads.retention import Retention


@pytest.fixture
def api_settings(settings: SharedSettings) -> ApiSettings:
    """The API's settings on the test's own Redis and folder; calls are not counted, which would leave a key."""
    return ApiSettings(shared=settings, anonymous_calls_per_minute=0)


@pytest.fixture
def client(api_settings: ApiSettings) -> Iterator[TestClient]:
    """A client of a running API; an unhandled error is a response, not an exception."""
    with TestClient(create_app(api_settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def retention(queue: JobQueue, storage: Storage, settings: SharedSettings) -> Retention:
    """Retention of inputs and images; a test calls `sweep` itself."""
    return Retention(queue.connection, storage, settings.gone_seconds)
