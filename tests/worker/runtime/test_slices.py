"""Long work in slices: where it stops, and what is in force meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import greenlet
import pytest
import torch

from worker.runtime import slices


class Cancelled(BaseException):
    """Thrown into the work."""


@pytest.fixture
def other_thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_a_slice_ends_once_it_has_handled_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_BYTES", 100)
    seen: list[int] = []
    done: list[torch.Tensor] = []
    tensors = [torch.empty(count, dtype=torch.uint8) for count in (60, 60, 10, 500, 60, 60)]
    with slices.cut(lambda: seen.append(len(done))):
        for tensor in slices.each(tensors):
            done.append(tensor)  # noqa: PERF402  # it is looked at in between
        slices.end()
    assert seen == [2, 4, 6, 6]


def test_work_that_nobody_cuts_never_stops() -> None:
    assert [tensor.nbytes for tensor in slices.each([torch.empty(2**20)] * 2)] == [2**22] * 2
    slices.end()


def test_a_lock_is_free_during_pauses_and_held_otherwise(other_thread: ThreadPoolExecutor) -> None:
    lock, free = threading.RLock(), []

    def is_free() -> bool:
        taken = lock.acquire(blocking=False)
        if taken:
            lock.release()
        return taken

    with slices.cut(lambda: free.append(other_thread.submit(is_free).result())), slices.holding(lock):
        slices.end()
        assert not other_thread.submit(is_free).result()
        slices.end()
    assert free == [True, True]
    assert other_thread.submit(is_free).result()


def test_others_are_served_while_another_thread_holds_the_lock(other_thread: ThreadPoolExecutor) -> None:
    lock, pauses = threading.RLock(), []
    other_thread.submit(lock.acquire).result()

    def pause() -> None:
        pauses.append(1)
        if len(pauses) == 3:
            other_thread.submit(lock.release).result()

    with slices.cut(pause), slices.holding(lock):
        assert len(pauses) == 3


def test_what_is_thrown_in_during_a_pause_leaves_no_lock_behind(other_thread: ThreadPoolExecutor) -> None:
    lock = threading.RLock()

    def pause() -> None:
        raise Cancelled

    with pytest.raises(Cancelled), slices.cut(pause), slices.holding(lock):
        slices.end()
    assert other_thread.submit(lock.acquire, False).result()


def test_what_others_do_during_a_pause_is_not_cut() -> None:
    seen: list[str] = []

    def other() -> None:
        slices.end()
        seen.append("not stopped")

    def pause() -> None:
        seen.append("pause")
        greenlet.greenlet(other).switch()

    with slices.cut(pause):
        slices.end()
    assert seen == ["pause", "not stopped"]
