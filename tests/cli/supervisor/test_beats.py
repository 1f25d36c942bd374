"""Beats of child processes arrive with the id of their sender."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cli.supervisor.beats import BeatReceiver
from contracts.processes.watchdog import NOTIFY_SOCKET
from tests.support.forked_text import running


@pytest.fixture
def beats() -> Iterator[BeatReceiver]:
    """An open receiver."""
    receiver = BeatReceiver()
    yield receiver
    receiver.close()


def run(beats: BeatReceiver, program: str) -> int:
    environment = os.environ | {NOTIFY_SOCKET: beats.address}
    with running(program, environment=environment) as (process, _):
        assert process.wait(60) == 0
    return process.pid


def test_a_beat_names_the_process_that_sent_it(beats: BeatReceiver) -> None:
    assert beats.receive() == set()
    beat = "from contracts.processes.watchdog import Watchdog; Watchdog(60).beat()"
    assert beats.receive() == set()
    pids = {run(beats, beat), run(beats, beat)}
    assert beats.receive() == pids
    assert beats.receive() == set()


def test_starting_is_no_beat(beats: BeatReceiver) -> None:
    run(beats, "from contracts.processes.watchdog import Watchdog; Watchdog(60)")
    assert beats.receive() == set()


def test_a_process_beats_although_nobody_listens_any_more(beats: BeatReceiver) -> None:
    run(
        beats,
        f"""
import os
from contracts.processes.watchdog import Watchdog
watchdog = Watchdog(60)
for _ in range(1000):
    watchdog.beat()
os.environ["{NOTIFY_SOCKET}"] = "/nowhere.sock"
Watchdog(60).beat()
""",
    )
