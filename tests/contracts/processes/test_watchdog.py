"""The watchdog ends a process whose interpreter, event loop or work is stuck, and leaves one that works alone."""

from __future__ import annotations

import pytest

from contracts.processes.watchdog import STALLED
from tests.support.forked_text import running

#: Native code that holds the interpreter's lock and never returns, without burning a core.
HOLD_INTERPRETER = "ctypes.PyDLL(None).pause()"
PRELUDE = """
import asyncio, ctypes, re, threading, time
from contracts.processes.watchdog import Watchdog
"""


def run(program: str) -> tuple[int | None, str, str]:
    """Its exit status, and what it writes to its standard output and to standard error."""
    with running(PRELUDE + program) as (process, shown):
        _, error = process.communicate(timeout=60)
        return process.returncode, shown.read(), error


@pytest.mark.parametrize("native_code", [HOLD_INTERPRETER, 're.match("(a+)+b", "a" * 64)'])
def test_native_code_that_holds_the_interpreter_ends_the_process_and_is_named(native_code: str) -> None:
    code, _, error = run(f"Watchdog(0.5).watch(lambda: None)\n{native_code}")

    assert code == 1
    assert "Timeout" in error
    assert 'File "<string>", line 5 in <module>' in error or "re/__init__.py" in error


def test_an_event_loop_that_hangs_ends_the_process() -> None:
    code, shown, error = run("""
async def hang():
    Watchdog(1.5).watch_event_loop(asyncio.get_running_loop())
    await asyncio.sleep(3)
    print("the loop ran", flush=True)
    time.sleep(60)

asyncio.run(hang())
""")

    assert (code, shown) == (1, "the loop ran\n")
    assert "in hang" in error


def test_a_fault_ends_the_process_and_is_logged() -> None:
    code, _, error = run('Watchdog(0.5).watch(lambda: "the engine is stuck")\ntime.sleep(60)')

    assert code == STALLED
    assert "the engine is stuck" in error


def test_a_process_that_works_is_left_alone_and_ends_as_it_likes() -> None:
    code, _, error = run("""
async def work():
    Watchdog(1.5).watch_event_loop(asyncio.get_running_loop())
    await asyncio.sleep(3)

asyncio.run(work())
raise SystemExit(5)
""")

    assert (code, error) == (5, "")
