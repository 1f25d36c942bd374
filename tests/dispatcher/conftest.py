"""The API, a worker's hands, a real dispatcher process, and real receivers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.outbound.signing import Secret
from contracts.queue.client import JobQueue
from contracts.settings import OutboundSettings, SharedSettings
from contracts.storage import Storage
from tests.app.conftest import Hands
from tests.support.receiver import Receiver, receiving

SECRET = Secret(b"a secret of the tests, 32 bytes.").write()
LOCAL = '["127.0.0.0/8"]'
PAUSES = [0.05, 0.05, 0.05, 0.05, 0.05]
ENDS = ["completed", "failed", "cancelled"]


@pytest.fixture
def client(settings: SharedSettings) -> Iterator[TestClient]:
    """An API that allows webhooks to this machine."""
    outbound = OutboundSettings.model_validate({"networks": ["127.0.0.0/8"]})
    with TestClient(create_app(ApiSettings(shared=settings, outbound=outbound))) as client:
        yield client


@pytest.fixture
def hands(queue: JobQueue, storage: Storage) -> Hands:
    """A worker's hands."""
    return Hands(queue, storage)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that answers 200."""
    with receiving() as receiver:
        yield receiver


@contextmanager
def dispatching(redis_url: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """A dispatcher process with short pauses; keywords are further `DARKROOM_…` settings."""
    environment = os.environ | {
        "DARKROOM_REDIS_URL": redis_url,
        "DARKROOM_OUTBOUND_NETWORKS": LOCAL,
        "DARKROOM_WEBHOOK_SECRET": SECRET,
        "DARKROOM_WEBHOOK_PAUSES_SECONDS": str(PAUSES),
        "DARKROOM_WEBHOOK_POLL_SECONDS": "0.02",
        **settings,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "dispatcher"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def dispatcher(redis_url: str) -> Iterator[subprocess.Popen[str]]:
    """A dispatcher that delivers to this machine."""
    with dispatching(redis_url) as process:
        yield process


Order = Callable[..., dict[str, Any]]


@pytest.fixture
def order(client: TestClient) -> Order:
    """Makes a job with a webhook."""

    def order(url: str, *events: str, **fields: Any) -> dict[str, Any]:
        webhook: dict[str, Any] = {"url": url} | ({"events": list(events)} if events else {})
        answer = client.post("/v1/txt2img", json={"prompt": "a red circle", "webhook": webhook} | fields)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job

    return order


def until(is_so: Callable[[], Any], timeout_seconds: float = 30) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout_seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)
