"""`darkroom admin` against a real API, with jobs that a scripted worker claims."""

from __future__ import annotations

import pytest

from cli.main import main
from contracts.auth.api_keys import ApiKeyStore, Scope
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from tests.support.parameters import parameters
from tests.support.scripted_worker import ScriptedWorker


def test_an_operator_sees_and_changes_all_owners_jobs_from_the_terminal(
    server: str,
    queue: JobQueue,
    worker: ScriptedWorker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(command: str, status: int = 0) -> str:
        assert main(["admin", *command.split()]) == status
        found = capsys.readouterr()
        return found.err if status else found.out

    keys = ApiKeyStore(queue.connection)
    admin, plain = (
        keys.create(name, name, scopes={scope})[1] for name, scope in (("a", Scope.ADMIN), ("b", Scope.GENERATE))
    )
    first, second, third = (queue.submit(parameters(), owner=owner).id for owner in ("ann", "bob", "bob"))
    publish(queue.connection, WorkerReport(id="w1", state="idle", device="cuda:0"), 600)
    monkeypatch.setenv("DARKROOM_SERVER", server)
    monkeypatch.setenv("DARKROOM_API_KEY", plain)
    assert "needs an API key with the scope admin" in run("jobs", status=1)
    monkeypatch.setenv("DARKROOM_API_KEY", admin)

    assert [line.split()[0] for line in run("jobs").splitlines()] == ["id", third, second, first]
    assert run("jobs --owner ann --json").count("\n") == 1
    assert '"prompt": ' in run(f"show {first}")
    assert run(f"priority {third} high") == f"{third} queued, priority high\n"
    assert [line.split()[:4] for line in run("queues").splitlines()[1:]] == [
        ["high", "shapes-sdxl", "bob", "1"],
        ["normal", "shapes-sdxl", "ann", "1"],
        ["normal", "shapes-sdxl", "bob", "1"],
    ]
    assert run("pause shapes-sdxl") == "paused: shapes-sdxl\ndrained: no worker\n"
    assert run("drain w1") == "paused: shapes-sdxl\ndrained: w1\n"
    assert run("workers").splitlines()[1].split()[:3] == ["w1", "paused", "cuda:0"]
    assert (
        run("undrain w1") + run("resume shapes-sdxl")
        == "paused: shapes-sdxl\ndrained: no worker\npaused: nothing\ndrained: no worker\n"
    )
    assert "name a model, an owner or a priority, or send all=true" in run("purge", status=1)
    assert run("purge --owner bob") == "2 jobs cancelled\n"
    assert run(f"cancel {first}") == f"{first} cancelled\n"
    assert "only a failed job can be requeued" in run(f"requeue {first}", status=1)
    assert run("usage").splitlines()[1].split()[1:4] == ["shapes-sdxl", "3", "0"]  # of jobs without an API key
    assert [line.split()[1] for line in run("keys").splitlines()] == ["name", "a", "b"]
