"""A child process of `darkroom up`: restarted with growing pauses when it dies, and stopped."""

from __future__ import annotations

import os
import signal
import sys
import time

from cli.supervisor.process import Child
from tests.support.waiting import wait_until


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def restart(child: Child, after: int | None) -> None:
    def is_another() -> bool:
        child.revive()
        return child.is_running and child.pid != after

    wait_until(is_another)


def test_a_child_that_dies_is_restarted(capfd: object) -> None:
    child = Child("sleeper", python("import time; time.sleep(60)"), os.environ)
    child.start()
    first = child.pid
    child.signal(signal.SIGKILL)
    assert child.wait(60)
    restart(child, first)
    child.kill()
    assert not child.is_running


def test_a_child_that_keeps_dying_is_restarted_with_growing_pauses() -> None:
    child = Child("failing", ["false"], os.environ)
    child.start()
    pauses = []
    for _ in range(3):
        dead = child.pid
        assert child.wait(60)
        child.revive()  # notices its end
        began = time.monotonic()

        def is_restarted(dead: int | None = dead) -> bool:
            child.revive()
            return child.pid != dead

        wait_until(is_restarted)
        pauses.append(time.monotonic() - began)
    # Pauses last at least this long, however busy the machine is.
    assert pauses[0] > 0.15
    assert pauses[1] > 0.3
    assert pauses[2] > 0.6
    child.kill()


def test_a_file_descriptor_is_passed_on() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    child = Child("writer", python(f"import os; os.write({writer}, b'here')"), os.environ, fds=[writer])
    child.start()
    assert os.read(reader, 4) == b"here"
    assert child.wait(60)
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

    def is_killed() -> bool:
        child.kill_if_hung()
        return not child.is_running

    wait_until(is_killed)
    restart(child, first)
    child.kill()


def test_a_child_that_beats_is_not_killed_nor_is_one_whose_beats_could_not_be_heard() -> None:
    hang_seconds = 3.0  # a pause of this process between two lines is shorter
    child = Child("sleeper", python("import time; time.sleep(600)"), os.environ, (), hang_seconds)
    child.start()
    for _ in range(8):
        child.beat()
        time.sleep(hang_seconds / 6)
        child.kill_if_hung()
    silent = time.monotonic()
    time.sleep(hang_seconds)
    child.excuse(time.monotonic() - silent)
    child.kill_if_hung()
    assert child.is_running
    child.kill()
