"""The API, a real dispatcher process, and a receiver of webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.settings import OutboundSettings, SharedSettings
from tests.support.dispatcher_process import SubmitWithWebhook, dispatcher_process
from tests.support.forked_programs import ForkedProgram
from tests.support.receiver import Receiver, receiving


@pytest.fixture
def client(settings: SharedSettings) -> Iterator[TestClient]:
    """An API that allows webhooks to this machine."""
    outbound = OutboundSettings.model_validate({"networks": ["127.0.0.0/8"]})
    with TestClient(create_app(ApiSettings(shared=settings, outbound=outbound))) as client:
        yield client


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that answers 200."""
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def dispatcher(redis_url: str) -> Iterator[ForkedProgram]:
    """A dispatcher that delivers to this machine."""
    with dispatcher_process(redis_url) as process:
        yield process


@pytest.fixture
def submit_with_webhook(client: TestClient) -> SubmitWithWebhook:
    """Submits a job with a webhook."""

    def submit(url: str, *events: str, **fields: Any) -> dict[str, Any]:
        webhook: dict[str, Any] = {"url": url} | ({"events": list(events)} if events else {})
        response = client.post("/v1/txt2img", json={"prompt": "a red circle", "webhook": webhook} | fields)
        assert response.status_code == 202, response.text
        job: dict[str, Any] = response.json()
        return job

    return submit
