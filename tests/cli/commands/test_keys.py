"""`darkroom keys` and `--key`, against a real Redis and a real API."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.client import Client, ServiceError
from cli.main import main
from cli.supervisor.redis_server import RedisServer
from contracts.auth.api_keys import ApiKeyStore, Key, Scope
from contracts.queue.client import JobQueue
from contracts.redis.connection import connect
from contracts.requests.schema import Priority
from tests.support.scripted_worker import ScriptedWorker


@pytest.fixture
def keys(queue: JobQueue, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> ApiKeyStore:
    monkeypatch.setenv("DARKROOM_REDIS_URL", redis_url)
    return ApiKeyStore(queue.connection)


def authenticate(keys: ApiKeyStore, token: str) -> Key:
    key = keys.authenticate(token)
    assert key is not None
    return key


def test_a_key_is_created_and_shown_once(keys: ApiKeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "the ci"]) == 0

    printed = capsys.readouterr()
    key = authenticate(keys, printed.out.removesuffix("\n"))
    assert (key.name, key.owner, list(key.scopes)) == ("the ci", key.id, [Scope.GENERATE])
    assert (key.calls_per_minute, key.max_jobs, key.highest_priority) == (120, 100, Priority.NORMAL)
    assert key.id in printed.err
    main(["keys", "list"])
    assert printed.out.strip().removeprefix(f"dk_{key.id}_") not in capsys.readouterr().out


def test_a_key_has_the_given_limits(keys: ApiKeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--owner team --scope generate --scope admin --calls-per-minute 30 --max-jobs 4 --highest-priority low"

    assert main(["keys", "create", "a", *words.split()]) == 0

    key = authenticate(keys, capsys.readouterr().out.strip())
    assert (key.owner, sorted(key.scopes)) == ("team", ["admin", "generate"])
    assert (key.calls_per_minute, key.max_jobs, key.highest_priority) == (30, 4, Priority.LOW)
    main(["keys", "list"])
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["ID", "NAME", "OWNER", "SCOPES"]
    assert row.split()[:7] == [key.id, "a", "team", "admin,generate", "30", "4", "low"]


def test_the_limits_of_new_keys_are_settings_and_0_lifts_them(
    keys: ApiKeyStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = keys.create("of an earlier release")[0]
    monkeypatch.setenv("DARKROOM_KEYS_CALLS_PER_MINUTE", "7")
    monkeypatch.setenv("DARKROOM_KEYS_MAX_JOBS", "0")

    main(["keys", "create", "a"])
    main(["keys", "create", "b", "--calls-per-minute", "0", "--max-jobs", "3", "--highest-priority", "high"])

    first, second = (authenticate(keys, token) for token in capsys.readouterr().out.split())
    assert (first.calls_per_minute, first.max_jobs, first.highest_priority) == (7, None, Priority.NORMAL)
    assert (second.calls_per_minute, second.max_jobs, second.highest_priority) == (None, 3, Priority.HIGH)
    kept = keys.find_all()[0]
    assert (kept.id, kept.calls_per_minute, kept.max_jobs, kept.highest_priority) == (
        old.id, None, None, Priority.HIGH,
    )  # fmt: skip


def test_a_key_is_revoked(keys: ApiKeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    main(["keys", "create", "a"])
    token = capsys.readouterr().out.strip()

    assert main(["keys", "revoke", authenticate(keys, token).id]) == 0

    assert keys.authenticate(token) is None
    main(["keys", "list"])
    assert capsys.readouterr().out.splitlines()[1].split()[-1] != "-"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["create", "a", "--owner", "a:b"], "owner: "),
        (["create", "a", "--max-jobs", "1001"], "max_jobs: "),
        (["revoke", "nothing"], "key 'nothing' does not exist"),
    ],
)
def test_an_invalid_command_prints_one_line_and_fails(
    keys: ApiKeyStore, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["keys", *words]) == 1

    error = capsys.readouterr().err
    assert error.startswith(f"darkroom: {message}")
    assert error.count("\n") == 1


def test_an_unreachable_redis_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL", f"unix://{tmp_path}/none.sock")

    assert main(["keys", "list"]) == 1
    error = capsys.readouterr().err
    assert error == f"darkroom: DARKROOM_REDIS_URL unix://{tmp_path}/none.sock: Redis does not answer there\n"


def test_keys_are_created_in_the_redis_of_the_darkroom_up_that_runs_on_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DARKROOM_REDIS_URL", raising=False)
    server = RedisServer(tmp_path / "redis")
    server.start()
    try:
        assert main(["keys", "create", "a", "--data", str(tmp_path)]) == 0
        with connect(server.url, timeout_seconds=5, retries=0) as connection:
            assert [key.name for key in ApiKeyStore(connection).find_all()] == ["a"]
    finally:
        server.stop()
    assert f"service: {tmp_path}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["keys", "create", "a"], ["keys", "list"], ["keys", "revoke", "a"], ["webhooks", "secret"]]
)
def test_without_a_running_service_a_command_says_so_and_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    monkeypatch.delenv("DARKROOM_REDIS_URL", raising=False)
    monkeypatch.chdir(tmp_path)

    assert main(command) == 1

    error = capsys.readouterr().err
    assert error.startswith(f"darkroom: no service runs on {tmp_path}/data; start it with `darkroom up")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_never_shown(
    protected_redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL", protected_redis_url.replace("unix://", "unix://:a-secret@"))

    assert main(["keys", "list"]) == 1

    error = capsys.readouterr().err
    assert "Redis refuses the user name or password" in error
    assert "a-secret" not in error
    assert error.count("\n") == 1


def test_a_client_with_a_key_is_served(keys: ApiKeyStore, server: str, worker: ScriptedWorker) -> None:
    _, token = keys.create("a")
    with Client(server) as anonymous, pytest.raises(ServiceError, match="no API key"):
        anonymous.submit("txt2img", {"prompt": "x"})
    with Client(server, key=token) as client:
        job = client.submit("txt2img", {"prompt": "x"})
        data = worker.complete(worker.claim())
        assert client.download(client.wait(job["id"])["images"][0]) == data


def test_the_key_comes_from_the_environment(
    keys: ApiKeyStore, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, token = keys.create("a")
    words = ["models", "--server", server]
    assert main(words) == 1
    assert main([*words, "--key", token]) == 0
    monkeypatch.setenv("DARKROOM_API_KEY", token)
    assert main(words) == 0
    assert "shapes-sdxl" in capsys.readouterr().out


def test_a_key_has_daily_limits_and_others_are_explained(
    keys: ApiKeyStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "create", "a", "--per-day", "images=5", "--per-day", "device_seconds=60"]) == 0
    key = authenticate(keys, capsys.readouterr().out.strip())
    assert key.per_day == {"images": 5, "device_seconds": 60}
    main(["keys", "list"])
    assert "images=5,device_seconds=60" in capsys.readouterr().out
    for wrong in ("images", "images=0", "images=-1", "images=x", "dollars=5"):
        with pytest.raises(SystemExit):
            main(["keys", "create", "b", "--per-day", wrong])
        assert f"got {wrong}" in capsys.readouterr().err
