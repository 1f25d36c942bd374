"""The background thread: calls run in order, repeated calls survive errors, `close` waits."""

from __future__ import annotations

import threading

import pytest

from contracts.processes.background import BackgroundThread
from tests.support.forked_text import running
from tests.support.waiting import wait_until


def test_calls_run_one_after_another_in_a_thread_of_the_given_name() -> None:
    thread, gate, order = BackgroundThread("helper"), threading.Event(), []

    def call(number: int) -> str:
        assert gate.wait(60)
        order.append(number)
        return threading.current_thread().name

    futures = [thread.submit(lambda number=number: call(number)) for number in range(5)]  # type: ignore[misc]
    gate.set()
    assert [future.result(60) for future in futures] == ["helper"] * 5
    assert order == [0, 1, 2, 3, 4]
    thread.close()


def test_an_exception_is_in_its_future_and_the_next_call_runs() -> None:
    thread = BackgroundThread("helper")
    failed, next_one = thread.submit(lambda: 1 // 0), thread.submit(lambda: 1)
    with pytest.raises(ZeroDivisionError):
        failed.result(60)
    assert next_one.result(60) == 1
    thread.close()


def test_a_repeated_call_survives_its_errors_until_the_thread_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    thread, calls = BackgroundThread("beat"), []

    def call() -> None:
        calls.append(1)
        raise OSError("the disk is full")

    thread.repeat(call, 0.001)
    wait_until(lambda: len(calls) > 3)
    thread.close(30)
    ended = len(calls)
    assert "beat failed, it runs again in 0.001 s" in caplog.text
    with pytest.raises(RuntimeError, match="'beat' is closed"):
        thread.submit(call)
    assert len(calls) == ended


def test_close_waits_for_submitted_calls() -> None:
    thread, gate, done = BackgroundThread("helper"), threading.Event(), []
    thread.submit(lambda: gate.wait(60))
    thread.submit(lambda: done.append(1))
    thread.close(timeout_seconds=0)
    assert done == []
    gate.set()
    thread.close(30)
    assert done == [1]


def test_a_process_that_ends_does_not_wait_for_the_thread() -> None:
    program = (
        "import time\n"
        "from contracts.processes.background import BackgroundThread\n"
        "BackgroundThread('helper').submit(lambda: time.sleep(600))\n"
    )
    with running(program) as (process, _):
        assert process.wait(60) == 0
