"""`darkroom hub`, against a real Redis and the stand-in hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.main import main
from contracts.hub.source import HubSource
from contracts.hub_revisions import Revisions
from contracts.queue.client import JobQueue
from tests.support.hub import Hub, serving, use_hub


@pytest.fixture
def hub(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one repository, used by this process."""
    monkeypatch.setenv("DARKROOM_REDIS_URL", redis_url)
    with serving() as hub:
        hub.commit("org/model", {"model_index.json": b"{}"})
        use_hub(monkeypatch, hub, tmp_path / "home")
        yield hub


def test_commits_are_listed_and_updated(hub: Hub, queue: JobQueue, capsys: pytest.CaptureFixture[str]) -> None:
    before = Revisions(queue.connection).resolve(HubSource("org/model"))
    after = hub.commit("org/model", {"model_index.json": b"[]"})
    printed = []
    for words in (["list"], ["update", "org/model"], ["update", "org/model@main"], ["list"]):
        assert main(["hub", *words]) == 0
        printed.append(capsys.readouterr().out.strip())
    assert printed[0] == f"org/model@main  {before}"
    assert printed[1] == f"org/model@main is {after} now (was {before}); restart the workers to use it"
    assert printed[2] == f"org/model@main is {after}, as before"
    assert printed[3] == f"org/model@main  {after}"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("org/model@v9", "has no revision v9"),
        ("org", "must be ORG/NAME"),
        ("org/a/x.safetensors", "must be ORG/NAME"),
    ],
)
def test_what_is_not_on_the_hub_is_not_updated(
    words: str, complaint: str, hub: Hub, queue: JobQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hub", "update", words]) == 1
    assert complaint in capsys.readouterr().err
    assert Revisions(queue.connection).commits() == {}
