"""Signals to a process: the first asks it to drain, a second or the end of the drain time to stop at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from contracts.processes.shutdown import Shutdown
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _restore_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_to_drain_and_the_second_to_stop_at_once(number: signal.Signals) -> None:
    calls: list[int] = []
    shutdown = Shutdown(600, on_request=lambda: calls.append(1))
    shutdown.install()
    assert (shutdown.requested, shutdown.overdue) == (False, False)
    os.kill(os.getpid(), number)
    assert (shutdown.requested, shutdown.overdue, calls) == (True, False, [1])
    os.kill(os.getpid(), number)
    assert (shutdown.requested, shutdown.overdue) == (True, True)
    wait_until(lambda: shutdown.overdue_seconds > 0.01)
    os.kill(os.getpid(), number)
    assert shutdown.overdue_seconds > 0.01


def test_a_shutdown_is_overdue_after_the_drain_time() -> None:
    shutdown = Shutdown(1.0, on_request=lambda: None)
    shutdown.install()
    os.kill(os.getpid(), signal.SIGTERM)
    assert not shutdown.overdue
    wait_until(lambda: shutdown.overdue)


def test_before_there_is_work_a_signal_ends_the_process_and_is_kept_should_that_be_swallowed() -> None:
    shutdown = Shutdown(600, on_request=lambda: None)
    shutdown.install(exits=True)
    with pytest.raises(SystemExit) as end:
        os.kill(os.getpid(), signal.SIGTERM)
    assert end.value.code == 0
    assert shutdown.requested
