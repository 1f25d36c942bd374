"""One service for the whole run of these tests; tests that break a service start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.running_service import RunningService


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """`darkroom up` with one worker and the built-in catalogue."""
    environment = {"DARKROOM_OUTBOUND_NETWORKS": '["127.0.0.0/8"]', "DARKROOM_API_DISCONNECT_GRACE_SECONDS": "1"}
    running = RunningService(tmp_path_factory.mktemp("service") / "data", environment=environment)
    yield running
    assert running.stop() == 0, running.log.read_text(errors="replace")[-3000:]
