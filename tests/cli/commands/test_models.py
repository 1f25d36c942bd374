"""`darkroom models`: rows are added to the catalogue file, removed, fetched; a running service takes them over."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from cli.main import main
from contracts.catalogue.reader import read_catalogue
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.settings import BUILT_IN_CATALOGUE, SharedSettings
from tests.support.hub import serving, use_hub
from tests.support.hub_repositories import checkpoint

MODELS = BUILT_IN_CATALOGUE.parent
FIRST = f'[[models]] # ours\nid = "one"\nfamily = "sdxl"\nsource = "{MODELS}/shapes-sdxl"\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "catalogue.toml"
    path.write_text(f'# mine\ndefault_model = "one"\n{FIRST}', encoding="utf-8")
    path.chmod(0o640)
    monkeypatch.setenv("DARKROOM_CATALOGUE", str(path))
    return path


@pytest.fixture
def settings(settings: SharedSettings, file: Path) -> SharedSettings:
    """Shared settings with that catalogue."""
    return settings.model_copy(update={"catalogue": file})


def add(id: str, *words: str, family: str = "flux", source: str = "") -> int:
    """Add a model without a rehearsal, which starts a process with torch in it."""
    source = source or f"{MODELS}/shapes-{family}"
    return main(["models", "add", id, "--family", family, "--source", source, "--no-rehearsal", *words])


def test_a_row_is_added_and_removed_and_the_rest_of_the_file_stays(file: Path) -> None:
    before = file.read_text()
    assert add("two", "--set", 'title="Zwei \\"2\\""', "--set", "defaults={num_inference_steps=7}") == 0
    model = read_catalogue(file).model("two")
    assert (model.family, model.title, model.default("num_inference_steps")) == ("flux", 'Zwei "2"', 7)
    assert file.read_text().startswith(before)
    assert file.stat().st_mode & 0o777 == 0o640
    assert main(["models", "rm", "two"]) == 0
    assert file.read_text().rstrip() == before.rstrip()
    assert [path.name for path in file.parent.iterdir()] == ["catalogue.toml"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add", "one", "--family", "sdxl", "--source", "x/y"], "model 'one' is in "),
        (["add", "No", "--family", "sdxl", "--source", "x/y"], "id: String should match pattern"),
        (["add", "two", "--family", "sdxl", "--source", "./nowhere"], "./nowhere was not found on this machine"),
        (["add", "two", "--family", "sdxl", "--source", f"{MODELS}/shapes-flux"], "it is a FluxPipeline"),
        (
            ["add", "two", "--family", "sdxl", "--source", f"{MODELS}/shapes-sdxl", "--set", "x"],
            "--set must be KEY=VALUE",
        ),
        (
            ["add", "two", "--family", "sdxl", "--source", f"{MODELS}/shapes-sdxl", "--set", "sise=2"],
            "sise: Extra inputs",
        ),
        (["rm", "two"], "model 'two' is not in the catalogue; there are one"),
        (["rm", "one"], "one is the default_model of "),
        (["pull", "two", "--kind", "lora"], "lora 'two' is not in the catalogue; there are none"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_the_file(
    words: list[str], message: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file.read_text()
    assert main(["models", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert "/.catalogue" not in line
    assert file.read_text() == before
    assert len(list(file.parent.iterdir())) == 1


def test_a_model_that_no_worker_could_run_here_is_not_added_and_the_reason_is_said(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file.read_text()
    monkeypatch.setenv("DARKROOM_WORKER_MAX_MODELS", "0")  # told before torch is imported
    words = ["models", "add", "two", "--family", "flux", "--source", f"{MODELS}/shapes-flux"]
    assert main(words) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert "two was not added: DARKROOM_WORKER_MAX_MODELS: " in line
    assert "--no-rehearsal" in line
    assert file.read_text() == before
    assert len(list(file.parent.iterdir())) == 1


def test_the_file_that_comes_with_a_release_is_not_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DARKROOM_CATALOGUE", raising=False)
    assert add("two") == 1
    assert "set DARKROOM_CATALOGUE to a file of your own" in capsys.readouterr().err


def test_files_on_a_hub_are_fetched_and_verified_before_the_row_is_added(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        commit = hub.commit("org/sdxl", checkpoint())
        assert add("far", family="sdxl", source="org/sdxl") == 0
        assert f"of org/sdxl at {commit[:12]}, verified" in capsys.readouterr().out
        assert read_catalogue(file).model("far").source == "org/sdxl"
        assert add("gone", family="sdxl", source="org/nothing") == 1
        assert "org/nothing" in capsys.readouterr().err
    assert main(["models", "pull", "far"]) == 1  # the hub is away: a branch may have moved
    assert "far" in {row.id for row in read_catalogue(file).models}


def test_a_running_service_takes_over_what_was_added_and_removed(
    file: Path,
    server: str,
    queue: JobQueue,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(queue.connection, WorkerReport(id="w", state="idle", ready=["two"]), 600)
    monkeypatch.setenv("DARKROOM_SERVER", server)
    body = {"prompt": "a red circle", "model": "two"}
    assert httpx.post(f"{server}/v1/txt2img", json=body, trust_env=False).status_code == 422
    assert add("two") == 0
    assert main(["models", "reload"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "models: one, two"
    assert httpx.post(f"{server}/v1/txt2img", json=body, trust_env=False).status_code == 202
    assert main(["models"]) == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[2:]] == [["two", "flux", "ready"]]
    file.write_text(file.read_text() + "[[models", encoding="utf-8")
    assert main(["models", "reload"]) in (0, 1)  # the service may have looked before
    assert main(["models", "list"]) == 0
    assert "two" in capsys.readouterr().out
