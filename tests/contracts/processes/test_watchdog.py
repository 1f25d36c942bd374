"""The watchdog ends a process whose interpreter, event loop or work is stuck, and leaves one that works alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from contracts.processes.watchdog import STALLED

#: Native code that holds the interpreter's lock and never returns, without burning a core.
HOLD_INTERPRETER = "ctypes.PyDLL(None).pause()"
PRELUDE = """
import asyncio, ctypes, re, threading, time
from contracts.processes.watchdog import Watchdog
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PRELUDE + program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("native_code", [HOLD_INTERPRETER, 're.match("(a+)+b", "a" * 64)'])
def test_native_code_that_holds_the_interpreter_ends_the_process_and_is_named(native_code: str) -> None:
    done = run(f"Watchdog(0.5).watch(lambda: None)\n{native_code}")

    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert 'File "<string>", line 5 in <module>' in done.stderr or "re/__init__.py" in done.stderr


def test_an_event_loop_that_hangs_ends_the_process() -> None:
    done = run("""
async def hang():
    Watchdog(1.5).watch_event_loop(asyncio.get_running_loop())
    await asyncio.sleep(3)
    print("the loop ran", flush=True)
    time.sleep(60)

asyncio.run(hang())
""")

    assert (done.returncode, done.stdout) == (1, "the loop ran\n")
    assert "in hang" in done.stderr


def test_a_fault_ends_the_process_and_is_logged() -> None:
    done = run('Watchdog(0.5).watch(lambda: "the engine is stuck")\ntime.sleep(60)')

    assert done.returncode == STALLED
    assert "the engine is stuck" in done.stderr


def test_a_process_that_works_is_left_alone_and_ends_as_it_likes() -> None:
    done = run("""
async def work():
    Watchdog(1.5).watch_event_loop(asyncio.get_running_loop())
    await asyncio.sleep(3)

asyncio.run(work())
raise SystemExit(5)
""")

    assert (done.returncode, done.stderr) == (5, "")
