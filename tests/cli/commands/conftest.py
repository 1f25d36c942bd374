"""Fixtures: an API for commands that need no worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from app.main import create_app
from app.settings import ApiSettings
from contracts.settings import SharedSettings


@pytest.fixture
def server(settings: SharedSettings) -> Iterator[str]:
    """An API on a free port; yields its URL."""
    api = uvicorn.Server(uvicorn.Config(create_app(ApiSettings(shared=settings)), port=0, log_level="error"))
    thread = threading.Thread(target=api.run)
    thread.start()
    while not api.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{api.servers[0].sockets[0].getsockname()[1]}"
    yield url
    api.should_exit = True
    thread.join()
