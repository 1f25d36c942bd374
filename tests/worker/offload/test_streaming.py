"""Streamed groups on a device that is simulated: its streams have clocks, its memory is counted by torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from contracts.memory.plan import Placement
from worker.offload.copy_queue import CopyQueue
from worker.offload.offloaded_module import OffloadedModule
from worker.offload.streaming import StreamedModule, split
from worker.runtime.memory_tracker import MemoryTracker

CPU = torch.device("cpu")
#: Of a group, in the simulated device's seconds.
COPY_SECONDS, COMPUTE_SECONDS = 1.0, 2.0
BLOCKS = 4
BLOCK_BYTES = 4 * (64 * 64 + 64)


class SimulatedQueue(CopyQueue):
    """Two streams that work through what the host gives them, which takes the host no time.

    Attributes:
        stalls: seconds that the computing stream waited for each copy.
        waits: how often the host waited.
    """

    def __init__(self) -> None:
        self.copied_at = self.computed_at = 0.0
        self.stalls: list[float] = []
        self.copies = self.waits = 0

    @contextmanager
    def copying(self) -> Iterator[None]:
        yield
        self.copies += 1
        self.copied_at += COPY_SECONDS

    def copied(self) -> float:
        return self.copied_at

    def computed(self) -> float:
        return self.computed_at

    def before_computing(self, event: float) -> None:
        self.stalls.append(max(0.0, event - self.computed_at))
        self.computed_at = max(self.computed_at, event)

    def before_copying(self, event: float) -> None:
        self.copied_at = max(self.copied_at, event)

    def wait(self, event: Any) -> None:
        self.waits += 1

    def compute(self) -> None:
        self.computed_at += COMPUTE_SECONDS


def _streamed(queue: CopyQueue | None) -> StreamedModule:
    """Blocks of equal size, and one layer beside them."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(BLOCKS))
            self.out = torch.nn.Linear(64, 1)

    offloaded = OffloadedModule(Model(), CPU)
    offloaded.move(Placement.STREAMED)
    _, groups = split(offloaded.module, "block")
    stream = StreamedModule(offloaded, groups, queue)
    stream.runs_again = True
    return stream


def _run(stream: StreamedModule, queue: SimulatedQueue) -> None:
    stream.begin()
    for index in range(BLOCKS):
        stream.need(index)
        queue.compute()
        stream.done(index)
    stream.end()


def test_copies_hide_behind_computation_and_from_the_second_step_on_that_of_the_first_group_too() -> None:
    queue = SimulatedQueue()
    stream = _streamed(queue)
    _run(stream, queue)
    assert queue.stalls == [COPY_SECONDS] + [0.0] * (BLOCKS - 1)
    for _ in range(3):
        queue.stalls.clear()
        _run(stream, queue)
        assert queue.stalls == [0.0] * BLOCKS


def test_the_host_waits_for_no_group_and_each_is_copied_once_a_step() -> None:
    queue = SimulatedQueue()
    stream = _streamed(queue)
    for _ in range(3):
        _run(stream, queue)
    stream.leave()
    assert (queue.waits, queue.copies) == (0, 3 * BLOCKS + 1)


def test_no_more_than_two_groups_are_on_the_device_and_none_once_another_stage_begins() -> None:
    queue, tracker = SimulatedQueue(), MemoryTracker(CPU, 2**30)
    stream = _streamed(queue)
    with tracker.running(0):
        for _ in range(3):
            _run(stream, queue)
        assert stream._offloaded.device_bytes == BLOCK_BYTES
        stream.leave()
        assert stream._offloaded.device_bytes == 0
    assert tracker.peak_bytes == 2 * BLOCK_BYTES + 4 * 65


def test_memory_of_a_group_is_reused_only_by_copies_that_wait_for_its_use() -> None:
    """A copy that is freed while it is read would be overwritten: the copy stream must know of its use first."""
    order: list[tuple[str, float]] = []

    class Recorded(SimulatedQueue):
        def before_copying(self, event: float) -> None:
            order.append(("wait", event))
            super().before_copying(event)

        @contextmanager
        def copying(self) -> Iterator[None]:
            with super().copying():
                yield
            order.append(("copy", self.computed_at))

    queue = Recorded()
    stream = _streamed(queue)
    _run(stream, queue)
    order.clear()
    _run(stream, queue)
    # While a group computes the next one is copied; then copies wait for its use, whose memory they take next. The
    # first copy of the step takes that of the last step's last group.
    ends = [queue.computed_at - COMPUTE_SECONDS * (BLOCKS - 1 - index) for index in range(BLOCKS)]
    assert order == [(what, end) for end in ends for what in ("copy", "wait")]


def test_another_order_than_the_last_time_is_followed_and_learned() -> None:
    queue = SimulatedQueue()
    stream = _streamed(queue)
    _run(stream, queue)
    for _ in range(2):
        stream.begin()
        for index in reversed(range(BLOCKS)):
            stream.need(index)
            assert stream._offloaded.device_bytes >= BLOCK_BYTES
            queue.compute()
            stream.done(index)
        stream.end()
    queue.stalls.clear()
    stream.begin()
    stream.need(BLOCKS - 1)
    assert queue.stalls == [0.0]


def test_a_run_that_breaks_off_leaves_nothing_and_frees_it_only_once_it_has_been_used() -> None:
    queue = SimulatedQueue()
    stream = _streamed(queue)
    _run(stream, queue)
    stream.begin()
    stream.need(0)
    queue.compute()
    stream.clear()
    assert stream._offloaded.device_bytes == 0
    assert queue.copied_at >= queue.computed_at
