"""`darkroom generate` and `darkroom jobs` against a real API, with jobs that a scripted worker completes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from cli.main import main
from tests.support.forked_programs import ForkedProgram
from tests.support.scripted_worker import ScriptedWorker


@pytest.fixture
def http(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A service without a worker, which commands find by DARKROOM_SERVER."""
    monkeypatch.delenv("DARKROOM_API_KEY", raising=False)
    monkeypatch.setenv("DARKROOM_SERVER", server)
    monkeypatch.chdir(tmp_path)
    with httpx.Client(base_url=server, trust_env=False) as http:
        yield http


def detach(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["generate", "a red circle", "--detach", *options]) == 0
    return capsys.readouterr().out.strip()


def test_a_detached_job_is_listed_shown_watched_and_its_images_are_fetched_once(
    http: httpx.Client, worker: ScriptedWorker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    id = detach(capsys, "--priority", "low", "--metadata", "for=me", "--width", "128")
    assert main(["jobs", "list", "--status", "queued"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"{id}  queued  txt2img  shapes-sdxl")
    assert main(["jobs", "show", id]) == 0
    shown = capsys.readouterr().out
    assert '"for": "me"' in shown

    data = worker.complete(worker.claim())
    assert main(["jobs", "watch", id]) == 0
    assert capsys.readouterr().out == f"{id} completed; its images: darkroom jobs fetch {id}\n"

    for name in ("out.png", "out-2.png"):  # without -o nothing is ever overwritten
        assert main(["jobs", "fetch", id]) == 0
        assert capsys.readouterr().out == f"{name}\n"
    (tmp_path / "mine.png").write_bytes(b"mine")
    assert main(["jobs", "fetch", id, "-o", "mine.png"]) == 1
    refused = capsys.readouterr().err
    assert refused.startswith("darkroom: mine.png exists already: choose another -o, or overwrite with --force")
    assert (tmp_path / "mine.png").read_bytes() == b"mine"
    assert main(["jobs", "fetch", id, "-o", "mine.png", "--force"]) == 0
    assert (tmp_path / "mine.png").read_bytes() == (tmp_path / "out.png").read_bytes() == data


def test_a_file_that_exists_is_found_before_anything_is_queued(
    http: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a-1.jpg").write_bytes(b"mine")
    assert main(["generate", "a red circle", "-o", "a.jpg", "-n", "2"]) == 1
    assert "a-1.jpg exists already" in capsys.readouterr().err
    assert http.get("/v1/jobs").json()["data"] == []


def interrupt(process: ForkedProgram) -> str:
    """Press Ctrl-C; returns what the process writes to standard error until it ends.

    Once more if nothing happens: Python loses an interrupt that arrives while it runs a finalizer.
    """
    try:
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=20)[1]
        raise AssertionError("three interrupts did not end it")
    finally:
        process.kill()


def test_jobs_are_cancelled_by_command_and_by_ctrl_c_and_a_timeout_leaves_them_running(
    http: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    id = detach(capsys)
    assert main(["jobs", "watch", id, "--timeout", "0"]) == 1
    assert f"is still queued after 0 s, and goes on: darkroom jobs watch {id}" in capsys.readouterr().err
    assert main(["jobs", "cancel", id]) == 0
    assert capsys.readouterr().out == f"{id} cancelled\n"

    reader, writer = os.pipe()
    with os.fdopen(reader) as shown:
        with os.fdopen(writer, "w") as output:
            words = ["generate", "a red circle"]
            process = ForkedProgram("cli.main", os.environ, words=words, stdout=output.fileno())
        id = shown.readline().strip()
        error = interrupt(process)
    assert process.returncode == 130
    assert error == f"darkroom: the service was asked to cancel job {id}\n"
    assert http.get(f"/v1/jobs/{id}").json()["status"] == "cancelled"


def test_a_refused_field_is_printed_with_what_is_allowed(
    http: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "a red circle", "--scheduler", "flow_euler"]) == 1
    refused = capsys.readouterr().err
    assert refused.startswith("darkroom: scheduler: flow_euler ")
    assert "(allowed: euler, euler_karras" in refused
    assert refused.count("\n") == 1
