"""`darkroom up` as a process, without workers, which take long to start: what it does for any of its children.

Its processes are forked; `tests/chaos/test_failures.py` has a start as everybody makes it.
"""

from __future__ import annotations

import os
import pty
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from redis import Redis

from cli.main import main
from cli.supervisor.redis_server import find_running
from tests.support.forked_programs import ForkedProgram
from tests.support.waiting import wait_until

#: Without a beat a process is killed; one that lives has to beat in time on a busy machine, too.
HANG_SECONDS = 5


def up_words(data: Path) -> list[str]:
    return ["up", "--port", "0", "--workers", "0", "--data", str(data)]


@contextmanager
def up(data: Path, stdout: int = 1, stderr: int | None = None, **settings: str) -> Iterator[ForkedProgram]:
    """A `darkroom up` on this folder; the block must end it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    service, words = "tests.support.forked_service", up_words(data)
    process = ForkedProgram(service, clean | settings, words=words, stdout=stdout, stderr=stderr)
    try:
        yield process
    finally:
        process.kill()


def dispatchers(connection: Redis) -> set[int]:
    """The process ids of those that have started completely, or did not end as they should."""
    return {int(str(name).split("-")[-2]) for name in connection.smembers("rq:workers")}


def test_a_child_that_lives_and_does_not_beat_is_replaced_and_a_second_start_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    with up(data, DARKROOM_HANG_SECONDS=str(HANG_SECONDS)) as process:
        wait_until(lambda: find_running(data / "redis"))
        url = find_running(data / "redis")
        with Redis.from_url(str(url), decode_responses=True) as connection:
            wait_until(lambda: dispatchers(connection))
            (hung,) = map(psutil.Process, dispatchers(connection))
            hung.suspend()
            wait_until(lambda: dispatchers(connection) - {hung.pid})
            assert not hung.is_running()  # killed, and then waited for: a zombie runs, psutil says

        assert main(up_words(data)) == 1
        error = capsys.readouterr().err
        assert error == f"darkroom: another `darkroom up` runs on {data}; stop it, or choose another --data\n"
        assert find_running(data / "redis") == url

        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert find_running(data / "redis") is None


def test_a_part_that_cannot_start_ends_the_service_with_one_line_below_what_was_found(tmp_path: Path) -> None:
    shown, terminal = pty.openpty()
    # The dispatcher is the part that needs the least time to say so.
    settings = {"DARKROOM_WEBHOOK_CONCURRENCY": "0", "DARKROOM_LOG_LEVEL": "warning", "TERM": "dumb"}
    with up(tmp_path / "data", terminal, terminal, **settings) as process:
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
    assert "models/catalogue.toml, 5 models, 16 LoRAs, 8 ControlNets" in lines[2]
    assert lines[5].endswith("none; jobs wait until one is started")
    assert lines[6:] == [
        "darkroom dispatcher: DARKROOM_WEBHOOK_CONCURRENCY: Input should be greater than or equal to 1",
    ]
