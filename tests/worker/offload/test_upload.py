"""Weights through two buffers: the same bytes, and no buffer is filled while its bytes still cross."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from contracts.memory.plan import Placement
from worker.offload.copy_queue import CopyQueue
from worker.offload.offloaded_module import OffloadedModule
from worker.offload.upload import Uploader
from worker.runtime import slices

CPU = torch.device("cpu")


class LateQueue(CopyQueue):
    """Copies as late as it may: when somebody waits for them.

    Attributes:
        waits: how often the host waited.
        steps: what was asked for, in order.
    """

    def __init__(self) -> None:
        self.waits = 0
        self.steps: list[str] = []
        self._copies: list[Callable[[], Any]] = []
        self._done = 0

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self.steps.append("copy")
        self._copies.append(lambda: target.copy_(source))

    def copied(self) -> int:
        return len(self._copies)

    def computed(self) -> int:
        return self._done

    def before_copying(self, event: int) -> None:
        self.steps.append("copies wait")

    def before_computing(self, event: int) -> None:
        self.steps.append("computation waits")
        self._finish(event)

    def wait(self, event: int) -> None:
        self.waits += 1
        self._finish(event)

    def _finish(self, event: int) -> None:
        for copy in self._copies[self._done : event]:
            copy()
        self._done = max(self._done, event)


def _uploader(queue: CopyQueue, size_bytes: int) -> Uploader:
    return Uploader(CPU, queue, [torch.zeros(size_bytes, dtype=torch.uint8) for _ in range(2)])


def test_copies_have_the_values_dtypes_and_strides_of_their_sources() -> None:
    sources = [
        torch.randn(3, 5),
        torch.randn(7, 3, 3, 3, dtype=torch.bfloat16).to(memory_format=torch.channels_last),
        torch.randn(40, 60).t(),
        torch.arange(300),
        torch.tensor(2.0),
        torch.empty(0),
        torch.randn(20, 20)[:, ::2],
        torch.randn(6, 5)[2:4],
        torch.randn(4, 4).to(torch.float8_e4m3fn),
    ]
    copies = _uploader(LateQueue(), 1000).upload(sources)
    for copy, source in zip(copies, sources, strict=True):
        assert (copy.dtype, copy.shape) == (source.dtype, source.shape)
        assert torch.equal(copy.float(), source.float())
        assert source.numel() == 0 or copy.data_ptr() != source.data_ptr()
    assert copies[1].stride() == sources[1].stride()
    assert not copies[0].is_inference()


def test_the_host_waits_only_for_a_buffer_that_it_needs_again() -> None:
    queue = LateQueue()
    uploader = _uploader(queue, 1000)
    source = torch.randn(750)
    (copy,) = uploader.upload([source])
    assert torch.equal(copy, source)
    assert (queue.steps.count("copy"), queue.waits) == (3, 1)
    small = [torch.randn(50) for _ in range(10)]
    copies = uploader.upload(small)
    assert all(torch.equal(one, other) for one, other in zip(copies, small, strict=True))
    assert queue.waits == 1 + 2


def test_copies_wait_for_what_may_still_read_their_memory_and_computation_waits_for_copies() -> None:
    queue = LateQueue()
    _uploader(queue, 1000).upload([torch.randn(50), torch.randn(50)])
    assert queue.steps == ["copies wait", "copy", "copy", "computation waits"]


def test_others_upload_through_the_same_buffers_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_BYTES", 900)
    uploader = _uploader(LateQueue(), 1000)
    sources, others = [torch.randn(90) for _ in range(10)], [torch.randn(70) for _ in range(3)]
    between: list[torch.Tensor] = []

    def pause() -> None:
        with slices.cut(None):
            between.extend(uploader.upload([others[len(between)]]))

    with slices.cut(pause):
        copies = uploader.upload(sources)
    assert len(between) == 3
    assert all(map(torch.equal, [*copies, *between], [*sources, *others]))


def test_weights_that_were_just_loaded_take_this_way_and_those_with_a_page_locked_copy_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = LateQueue()
    monkeypatch.setattr("worker.offload.offloaded_module.uploader_of", lambda _: _uploader(queue, 1000))
    module = torch.nn.Linear(8, 8)
    before = [value.clone() for value in module.parameters()]
    offloaded = OffloadedModule(module, CPU)
    offloaded.move(Placement.DEVICE)
    assert queue.steps.count("copy") == 2
    offloaded.move(Placement.ON_DEMAND)
    offloaded.move(Placement.DEVICE)
    assert queue.steps.count("copy") == 2
    assert all(torch.equal(now, value) for now, value in zip(module.parameters(), before, strict=True))
