"""What `darkroom up` prints until its service is ready, with a real Redis and an API that answers as planned."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.supervisor.announcement import Announcement
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.jobs.preparations import FAILED, FETCHING, RETRYING, Preparation
from contracts.memory.planner import take_capacity
from contracts.memory.policy import Policy
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.settings import BUILT_IN_CATALOGUE
from tests.support.receiver import Receiver, Reply, receiving

GATED = "org/model is gated: accept its terms on the hub and set HF_TOKEN for the worker"


@pytest.fixture
def api() -> Iterator[Receiver]:
    """An API that is not ready yet."""
    with receiving() as receiver:
        receiver.plans["/readyz"] = [Reply(503)]
        yield receiver


@pytest.fixture
def announcement(api: Receiver, redis_url: str, tmp_path: Path) -> Announcement:
    """Of a service whose default model is on a hub."""
    return Announcement(api.url, redis_url, _catalogue(tmp_path, "org/model"))


def _catalogue(root: Path, source: str) -> Catalogue:
    return Catalogue(root=root, default_model="m", models=(ModelSpec(id="m", family="sdxl", source=source),))


def report(queue: JobQueue, preparation: Preparation | None, worker: str = "w") -> None:
    preparing = [] if preparation is None else [preparation]
    ready = ["m"] if preparation is None else []
    publish(queue.connection, WorkerReport(id=worker, state="idle", preparing=preparing, ready=ready), 60)


def run(
    announcement: Announcement, capsys: pytest.CaptureFixture[str], until: str, then: Callable[[], object]
) -> tuple[list[str], list[str]]:
    """Run it, do something once a text was printed, and return the lines on stdout and stderr."""
    printed, deadline = ["", ""], time.monotonic() + 60
    is_done = False

    def is_closing() -> bool:
        nonlocal is_done
        for place, text in enumerate(capsys.readouterr()):
            printed[place] += text
        if until in printed[0] + printed[1] and not is_done:
            is_done = True
            then()
        return time.monotonic() > deadline

    announcement.run(is_closing)
    for place, text in enumerate(capsys.readouterr()):
        printed[place] += text
    return printed[0].splitlines(), printed[1].splitlines()


def test_a_model_that_is_fetched_is_told_until_it_is_ready(
    announcement: Announcement, api: Receiver, queue: JobQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    fetching = Preparation(
        name="m", state=FETCHING, bytes_done=1_200_000_000, bytes_total=6_900_000_000, bytes_per_second=84e6,
        remaining_seconds=68,
    )  # fmt: skip
    report(queue, fetching)

    def get_ready() -> None:
        report(queue, None)
        api.plans["/readyz"] = [Reply(200)]

    lines, _ = run(announcement, capsys, "preparing", get_ready)
    assert lines == [f"preparing {api.url}", f"ready {api.url}"]
    assert announcement.refusal is None


def test_an_unreachable_hub_is_told_and_ends_nothing(
    announcement: Announcement, api: Receiver, queue: JobQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    report(queue, Preparation(name="m", state=RETRYING, message="the hub cannot be reached", retry_seconds=8))

    def get_ready() -> None:
        report(queue, None)
        api.plans["/readyz"] = [Reply(200)]

    lines, _ = run(announcement, capsys, "preparing", get_ready)
    assert lines == [f"preparing {api.url}", f"ready {api.url}"]


def test_a_default_model_that_its_hub_refuses_ends_the_start_unless_another_worker_has_it(
    announcement: Announcement, api: Receiver, queue: JobQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    report(queue, Preparation(name="m", state=FETCHING), worker="one")
    report(queue, Preparation(name="m", state=FAILED, message=GATED), worker="two")

    def fail_everywhere() -> None:
        assert announcement.refusal is None
        report(queue, Preparation(name="m", state=FAILED, message=GATED), worker="one")

    lines, _ = run(announcement, capsys, "preparing", fail_everywhere)
    assert lines == [f"preparing {api.url}"]
    assert announcement.refusal == GATED


def test_a_default_model_on_this_machine_that_cannot_be_loaded_is_told_and_never_ready(
    api: Receiver, redis_url: str, queue: JobQueue, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    announcement = Announcement(api.url, redis_url, _catalogue(tmp_path, "here"))
    report(
        queue, Preparation(name="m", state=FAILED, message="m cannot be loaded: its files are not on the worker")
    )

    def find_files() -> None:
        assert api.at("/readyz") == []
        report(queue, None)
        api.plans["/readyz"] = [Reply(200)]

    lines, _ = run(announcement, capsys, "failed", find_files)
    assert lines == [
        f"failed {api.url}: m cannot be loaded: its files are not on the worker; fix that, or set another "
        "default_model in the catalogue; it is tried again every minute",
        f"ready {api.url}",
    ]


def test_what_workers_found_is_told_on_a_terminal_and_so_is_where_the_page_is(
    api: Receiver,
    redis_url: str,
    queue: JobQueue,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DARKROOM_LOG_FORMAT", "text")
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    capacity = take_capacity(catalogue, 2**30, Policy(), lambda _: 4)
    for number in (1, 2):
        found = WorkerReport(
            id=f"w{number}",
            state="idle",
            device="cuda:0",
            budget_bytes=2**30,
            capacity=capacity,
            ready=["shapes-sdxl"],
        )
        publish(queue.connection, found, 60)
    api.plans["/readyz"] = [Reply(200)]

    lines, told = run(Announcement(api.url, redis_url, catalogue, workers=2), capsys, "-", lambda: None)

    assert lines == [f"ready {api.url}"]
    assert told[0] == "  device     cuda:0, up to 1.0 GiB for models, 2 workers"
    assert told[1] == "  models     shapes-sdxl     sdxl   16.4 MiB  all resident, default"
    assert [line.split()[0] for line in told[2:4]] == ["shapes-sd3", "shapes-flux"]
    assert f"  page       {api.url}/" in told
    monkeypatch.setenv("DARKROOM_API_PAGE", "off")
    _, told = run(Announcement(api.url, redis_url, catalogue, workers=2), capsys, "-", lambda: None)
    assert [line.split()[0] for line in told[-3:] if line] == ["API", "stop"]
