"""`darkroom up` as a process, without workers, which take long to start: what it does for any of its children."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from redis import Redis

from cli.supervisor.redis_server import find_running
from tests.support.waiting import wait_until

#: Without a beat a process is killed; one that lives has to beat in time on a busy machine, too.
HANG_SECONDS = 5


def up_command(data: Path) -> list[str]:
    return [sys.executable, "-m", "cli.main", "up", "--port", "0", "--workers", "0", "--data", str(data)]


@contextmanager
def up(data: Path) -> Iterator[subprocess.Popen[str]]:
    """A `darkroom up` on this folder; the block must end it."""
    command = up_command(data)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    environment = clean | {"DARKROOM_HANG_SECONDS": str(HANG_SECONDS)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def dispatcher_of(process: subprocess.Popen[str]) -> psutil.Process | None:
    """The dispatcher among the children, if it runs now."""
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):  # one that has just ended has no command line
            if "dispatcher" in child.cmdline():
                return child
    return None


def is_registered(data: Path, child: psutil.Process | None) -> bool:
    """Whether a process has started completely."""
    url = find_running(data / "redis")
    if url is None or child is None:
        return False
    with Redis.from_url(url, decode_responses=True) as connection:
        names = connection.smembers("rq:workers")
        return any(f"-{child.pid}-" in name for name in names)


def test_a_child_that_lives_and_does_not_beat_is_replaced_and_a_second_start_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with up(data) as process:
        wait_until(lambda: is_registered(data, dispatcher_of(process)))
        hung = dispatcher_of(process)
        assert hung is not None
        hung.suspend()
        wait_until(lambda: is_registered(data, dispatcher_of(process)) and dispatcher_of(process) != hung)
        wait_until(lambda: not hung.is_running())  # killed, and then waited for: a zombie runs, psutil says

        url = find_running(data / "redis")
        with up(data) as second:
            _, error = second.communicate(timeout=60)
        assert second.returncode == 1
        assert error == f"darkroom: another `darkroom up` runs on {data}; stop it, or choose another --data\n"
        assert find_running(data / "redis") == url

        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert find_running(data / "redis") is None


def test_a_part_that_cannot_start_ends_the_service_with_one_line_below_what_was_found(tmp_path: Path) -> None:
    shown, terminal = pty.openpty()
    command = up_command(tmp_path / "data")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    environment = clean | {"DARKROOM_API_MAX_CONNECTIONS": "2", "TERM": "dumb"}
    with subprocess.Popen(command, env=environment, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        text = b""
        with suppress(OSError):  # Linux' answer once all other ends are closed
            while piece := os.read(shown, 65_536):
                text += piece
        assert process.wait(60) == 1
    os.close(shown)

    lines = text.decode().splitlines()
    assert lines[0].startswith("Darkroom ")
    assert [line.split()[0] for line in lines[2:6]] == ["catalogue", "data", "redis", "workers"]
    assert "models/catalogue.toml, 3 models, 12 LoRAs, 6 ControlNets" in lines[2]
    assert lines[5].endswith("none; jobs wait until one is started")
    assert lines[6:] == [
        "darkroom api: DARKROOM_API_MAX_CONNECTIONS: Input should be greater than or equal to 8",
    ]
