"""A child process of `darkroom up`: restarted with growing pauses when it dies, and stopped."""

from __future__ import annotations

import os
import signal
import sys
import time

from cli.supervisor.process import Child


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def restart(child: Child, after: int | None) -> None:
    deadline = time.monotonic() + 20
    while not child.is_running or child.pid == after:
        assert time.monotonic() < deadline
        child.revive()
        time.sleep(0.02)


def test_a_child_that_dies_is_restarted(capfd: object) -> None:
    child = Child("sleeper", python("import time; time.sleep(60)"), os.environ)
    child.start()
    first = child.pid
    child.signal(signal.SIGKILL)
    assert child.wait(10)
    restart(child, first)
    child.kill()
    assert not child.is_running


def test_a_child_that_keeps_dying_is_restarted_with_growing_pauses() -> None:
    child = Child("failing", python("raise SystemExit(3)"), os.environ)
    child.start()
    pids, end = {child.pid}, time.monotonic() + 2
    while time.monotonic() < end:
        child.revive()
        pids.add(child.pid)
        time.sleep(0.02)
    assert 2 <= len(pids) <= 5
    child.kill()


def test_a_file_descriptor_is_passed_on() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    child = Child("writer", python(f"import os; os.write({writer}, b'here')"), os.environ, fds=[writer])
    child.start()
    assert os.read(reader, 4) == b"here"
    assert child.wait(10)
    os.close(reader)
    os.close(writer)


def test_a_child_whose_beats_have_stopped_is_killed_although_it_lives_and_is_restarted() -> None:
    # Stopped as a whole, so nothing inside the process could end it.
    child = Child(
        "stopped", python("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"), os.environ, (), 0.2
    )
    child.start()
    first = child.pid
    child.kill_if_hung()
    assert child.is_running, "it has not beaten yet, and may still be starting"
    child.beat()
    while child.is_running:
        child.kill_if_hung()
        time.sleep(0.02)
    restart(child, first)
    child.kill()


def test_a_child_that_beats_is_not_killed_nor_is_one_whose_beats_could_not_be_heard() -> None:
    child = Child("sleeper", python("import time; time.sleep(60)"), os.environ, (), 1.0)
    child.start()
    for _ in range(4):
        child.beat()
        time.sleep(0.3)
        child.kill_if_hung()
    time.sleep(1.2)
    child.excuse(1.2)
    child.kill_if_hung()
    assert child.is_running
    child.kill()
