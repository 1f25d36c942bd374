"""The service's own Redis: found, durable, restarted, and gone when it is stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from redis import Redis

from cli.supervisor import redis_server
from cli.supervisor.redis_server import RedisNotFound, RedisServer, find_running, find_server
from tests.support.disks import full_disk
from tests.support.forked_text import running


def test_the_server_is_durable_never_evicts_and_listens_on_no_port(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    tmp_path.chmod(0o755)
    server.start()
    try:
        with Redis.from_url(server.url, decode_responses=True) as connection:
            settings = connection.config_get("*")
        assert settings["appendonly"] == "yes"
        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["port"] == "0"
        assert f"{tmp_path.stat().st_mode & 0o777:o}" == "700"
    finally:
        server.stop()
    assert not server.socket.exists()


def test_data_survives_a_crash(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        with Redis.from_url(server.url, decode_responses=True) as connection:
            connection.set("kept", "yes")
        server.kill()
        server.revive()
        with Redis.from_url(server.url, decode_responses=True) as connection:
            assert connection.get("kept") == "yes"
    finally:
        server.stop()


def test_a_server_that_a_full_disk_ended_waits_and_returns_with_its_data_when_there_is_space(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path, fsync="always")
    server.start()
    try:
        with Redis.from_url(server.url, decode_responses=True) as connection:
            connection.set("kept", "yes")
        server.kill()

        with full_disk():
            for _ in range(3):
                server.revive()
        assert find_running(tmp_path) is None
        assert str(tmp_path) in caplog.text
        assert "free some space" in caplog.text

        deadline = time.monotonic() + 60
        while find_running(tmp_path) is None:
            assert time.monotonic() < deadline, "it did not come back"
            server.revive()
            time.sleep(0.05)
        with Redis.from_url(server.url, decode_responses=True) as connection:
            assert connection.get("kept") == "yes"
    finally:
        server.stop()


def test_a_first_start_on_a_full_disk_says_so(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    with full_disk(), pytest.raises(RuntimeError, match=r"cannot take more data .* free some space"):
        server.start()
    server.stop()


def test_a_long_data_folder_does_not_break_the_socket(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / ("deep" * 30))
    server.start()
    server.stop()


def test_a_running_server_is_found(tmp_path: Path) -> None:
    assert find_running(tmp_path) is None
    server = RedisServer(tmp_path)
    server.start()
    try:
        assert find_running(tmp_path) == server.url
        server.kill()
        assert find_running(tmp_path) is None
    finally:
        server.stop()
    assert find_running(tmp_path) is None


def test_two_servers_never_share_an_append_only_file(tmp_path: Path) -> None:
    server, other = RedisServer(tmp_path), RedisServer(tmp_path)
    server.start()
    with pytest.raises(RuntimeError, match="another `darkroom up` runs on"):
        other.start(timeout_seconds=0.3)
    other.stop()
    assert find_running(tmp_path) == server.url, "the second one has touched the first"

    server.stop()

    third = RedisServer(tmp_path)
    third.start()
    third.stop()


def test_the_folder_stays_locked_until_the_server_of_a_killed_parent_has_ended(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from cli.supervisor import redis_server
redis_server.end_with_parent = lambda: lambda: None
server = redis_server.RedisServer(Path({str(tmp_path)!r}))
server.start()
print(server.process.pid, server.socket, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    server = RedisServer(tmp_path)
    with running(program) as (parent, shown):
        pid, socket = shown.readline().split()
        parent.wait(60)
        try:
            with pytest.raises(RuntimeError, match="another `darkroom up` runs on"):
                server.start(timeout_seconds=0.3)
        finally:
            os.kill(int(pid), signal.SIGKILL)
    server.start()
    server.stop()
    assert not Path(socket).parent.exists(), "the socket of the former server is left"


def test_a_server_on_the_path_is_preferred_to_the_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == program


def test_a_missing_server_is_reported_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setattr(redis_server, "find_spec", lambda name: None)
    with pytest.raises(RedisNotFound, match="apt-get install redis-server") as caught:
        find_server()
    assert "\n" not in str(caught.value)
