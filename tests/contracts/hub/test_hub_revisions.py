"""What a branch is for a service: the first answer counts for all workers, until somebody asks for an update."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.errors import Unavailable
from contracts.hub.errors import HubRefused, HubUnavailable
from contracts.hub.source import HubSource
from contracts.hub_revisions import Revisions
from contracts.queue.client import JobQueue
from contracts.redis.connection import connect
from tests.support.hub import Hub, serving, use_hub
from tests.support.hub_repositories import checkpoint, sketch

SOURCE = HubSource("org/model")
FILES = sketch(checkpoint())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one repository, used by this process."""
    with serving() as hub:
        hub.commit("org/model", FILES)
        use_hub(monkeypatch, hub, tmp_path / "home")
        yield hub


def test_workers_agree_on_a_branch_that_moves_between_them(
    hub: Hub, queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Revisions(queue.connection).resolve(SOURCE)
    hub.commit("org/model", FILES | {"model_index.json": b"{}"})
    for number in range(2):
        use_hub(monkeypatch, hub, tmp_path / f"home of another worker {number}")
        worker = Revisions(queue.connection)
        assert [worker.known(SOURCE), worker.resolve(SOURCE)] == [first, first]
        assert worker.resolve(HubSource("org/model", "main", "a.safetensors")) == first
    assert hub.head("org/model") != first


def test_what_the_cache_remembers_counts_before_the_hub_is_asked(hub: Hub, queue: JobQueue) -> None:
    before = Revisions().resolve(SOURCE)
    hub.commit("org/model", FILES | {"model_index.json": b"{}"})
    asked = len(hub.requests)
    assert Revisions(queue.connection).known(SOURCE) == before
    assert Revisions(queue.connection).commits() == {"org/model@main": before}
    assert len(hub.requests) == asked


def test_a_revision_that_nobody_has_asked_for_is_known_only_once_the_hub_was_asked(
    hub: Hub, queue: JobQueue
) -> None:
    tag = hub.commit("org/model", FILES | {"model_index.json": b"{}"}, branch="v1")
    revisions = Revisions(queue.connection)
    source = HubSource("org/model", "v1")
    assert revisions.known(source) is None
    assert hub.requests == []
    assert [revisions.resolve(source), revisions.known(source)] == [tag, tag]
    assert revisions.known(HubSource("org/model", tag)) == tag


def test_an_update_counts_for_workers_that_start_after_it_and_needs_no_cache(
    hub: Hub, queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Revisions(queue.connection)
    before = running.resolve(SOURCE)
    after = hub.commit("org/model", FILES | {"model_index.json": b"{}"})
    (tmp_path / "file").touch()
    use_hub(monkeypatch, hub, tmp_path / "file")  # a cache that cannot be written
    assert Revisions(queue.connection).update(SOURCE) == after
    assert [running.resolve(SOURCE), Revisions(queue.connection).resolve(SOURCE)] == [before, after]


def test_nothing_is_remembered_of_a_hub_that_did_not_answer_or_refused(hub: Hub, queue: JobQueue) -> None:
    revisions = Revisions(queue.connection)
    with pytest.raises(HubRefused, match="no revision v9"):
        revisions.resolve(HubSource("org/model", "v9"))
    hub.stop()
    with pytest.raises(HubUnavailable):
        revisions.resolve(SOURCE)
    assert revisions.commits() == {}
    hub.start()
    assert revisions.resolve(SOURCE) == hub.head("org/model")


def test_without_redis_nothing_is_decided(hub: Hub) -> None:
    unreachable = connect("redis://127.0.0.1:1/0", timeout_seconds=1, retries=0)
    with pytest.raises(Unavailable):
        Revisions(unreachable).resolve(SOURCE)
    assert hub.requests == []
