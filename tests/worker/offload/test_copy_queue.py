"""Which stream waits for which, by stand-ins for CUDA's streams and events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from worker.offload.copy_queue import CopyQueue, queue_of


class Event:
    """Counts how often the host waits for it."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.waits = 0

    def record(self, stream: Stream) -> None:
        self.stream = stream

    def synchronize(self) -> None:
        self.waits += 1


class Stream:
    """Notes what it waits for."""

    def __init__(self) -> None:
        self.waited_for: list[Event] = []

    def wait_event(self, event: Event) -> None:
        self.waited_for.append(event)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> tuple[Stream, Stream, list[Stream]]:
    """The computing stream, the one that copies, and those that were current, in order."""
    computing, copying, current = Stream(), Stream(), []

    @contextmanager
    def enter(stream: Stream) -> Iterator[None]:
        current.append(stream)
        yield

    monkeypatch.setattr("worker.offload.copy_queue.copy_stream", lambda _: copying)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: computing)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", enter)
    return computing, copying, current


def test_each_stream_waits_for_the_events_of_the_other_and_the_host_for_none(
    streams: tuple[Stream, Stream, list[Stream]],
) -> None:
    computing, copying, _ = streams
    queue = CopyQueue(torch.device("cuda:0"))
    copied, computed = queue.copied(), queue.computed()
    assert (copied.stream, computed.stream) == (copying, computing)
    queue.before_computing(copied)
    queue.before_copying(computed)
    assert (computing.waited_for, copying.waited_for) == ([copied], [computed])
    assert (copied.waits, computed.waits) == (0, 0)
    queue.wait(copied)
    assert copied.waits == 1


def test_copies_and_what_is_allocated_for_them_belong_to_the_copying_stream(
    streams: tuple[Stream, Stream, list[Stream]],
) -> None:
    _, copying, current = streams
    target, source = torch.zeros(3), torch.ones(3)
    CopyQueue(torch.device("cuda:0")).copy(target, source)
    assert current == [copying]
    assert torch.equal(target, source)


def test_the_cpu_has_no_queue() -> None:
    assert queue_of(torch.device("cpu")) is None
