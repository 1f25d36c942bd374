"""What the tests of the hub's client share: a stand-in hub, which this process uses, with an empty cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import Hub, serving


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """HF_HOME; its folder `hub` is the cache."""
    return tmp_path / "home"


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    with serving() as hub:
        for name, value in hub.environment(home).items():
            monkeypatch.setenv(name, value)
        yield hub
