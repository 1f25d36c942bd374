"""What a process learns of its Redis at its start: a wrong password, settings that risk jobs; never a password."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.supervisor.redis_server import RedisServer
from contracts.errors import SettingsError
from contracts.redis.access import check_access, find_memory_risks, without_secrets
from contracts.redis.connection import connect
from tests.support.forked_programs import ForkedProgram


def with_password(url: str, password: str) -> str:
    return url.replace("unix://", f"unix://default:{password}@")


def test_the_right_password_gives_access(protected_redis_url: str) -> None:
    assert check_access(with_password(protected_redis_url, "the-right-password"))


@pytest.mark.parametrize("password", ["a-secret", ""])
def test_a_wrong_or_absent_password_is_an_error_that_does_not_show_it(
    protected_redis_url: str, password: str
) -> None:
    url = with_password(protected_redis_url, password) if password else protected_redis_url
    with pytest.raises(SettingsError) as caught:
        check_access(url)
    assert "Redis refuses the user name or password" in str(caught.value)
    assert protected_redis_url in str(caught.value)
    assert "a-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_redis_that_does_not_answer_is_no_error(tmp_path: Path) -> None:
    assert not check_access(f"unix://{tmp_path}/none.sock")


def test_a_redis_without_a_limit_of_memory_or_that_evicts_is_a_risk(small_redis: RedisServer) -> None:
    assert find_memory_risks(small_redis.url) == []

    with connect(small_redis.url, timeout_seconds=5, retries=1) as connection:
        connection.config_set("maxmemory", 0)
        connection.config_set("maxmemory-policy", "allkeys-lru")

    no_limit, evicts = find_memory_risks(small_redis.url)
    assert "has no memory limit" in no_limit
    assert "set maxmemory to" in no_limit
    assert "maxmemory-policy allkeys-lru" in evicts
    assert "noeviction" in evicts


def test_nothing_is_known_of_a_redis_that_does_not_answer(tmp_path: Path) -> None:
    assert find_memory_risks(f"unix://{tmp_path}/none.sock") == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://:a-secret@host:6379/0", "redis://host:6379/0"),
        ("redis://me:a-secret@host/1?sentinel_password=a-secret#a-secret", "redis://host/1"),
        ("redis+sentinel://:a@a-secret@one:1,two:2/main", "redis+sentinel://one:1,two:2/main"),
        ("unix://:a-secret@/run/redis.sock?password=a-secret", "unix:///run/redis.sock"),
        ("redis://[::1:a-secret", "(unreadable)"),
    ],
)
def test_the_name_of_a_redis_has_no_secrets(url: str, name: str) -> None:
    assert without_secrets(url) == name


@pytest.mark.parametrize(
    ("module", "name"), [("app.__main__", "api"), ("worker.main", "worker"), ("dispatcher.main", "dispatcher")]
)
def test_a_process_with_a_wrong_password_ends_with_one_line(
    protected_redis_url: str, tmp_path: Path, module: str, name: str
) -> None:
    environment = os.environ | {
        "DARKROOM_REDIS_URL": with_password(protected_redis_url, "a-secret"),
        "DARKROOM_DATA": str(tmp_path),
        "DARKROOM_API_PORT": "0",
    }
    process = ForkedProgram(module, environment)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert log.startswith(f"darkroom {name}: DARKROOM_REDIS_URL {protected_redis_url}: Redis refuses")
    assert log.count("\n") == 1
    assert "a-secret" not in log
