"""One service for the commands of all pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.running_service import RunningService


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """`darkroom up` with one worker and the built-in catalogue."""
    running = RunningService(tmp_path_factory.mktemp("service") / "data")
    yield running
    assert running.stop() == 0, running.log.read_text(errors="replace")[-3000:]
