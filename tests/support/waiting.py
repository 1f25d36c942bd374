"""Waiting for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout_seconds: float = 60) -> None:
    """Wait until the condition is true; fails after the timeout."""
    deadline, pause_seconds = time.monotonic() + timeout_seconds, 0.02
    while not condition():
        assert time.monotonic() < deadline, f"not so within {timeout_seconds:g} s"
        time.sleep(pause_seconds)
        pause_seconds = min(0.1, 1.2 * pause_seconds)  # each question takes processor time from the other
