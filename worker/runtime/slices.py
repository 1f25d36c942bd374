"""Long work of the jobs' thread, cut into slices: between two of them the thread serves others.

What loads and copies weights notes how many bytes it has handled, and is stopped after each slice, if that is what
its caller wants: a job's coroutine does. Nothing that other work of the thread would find changed may be in force
at such a moment: no default of torch's, no patch that other work meets, no lock. Knows neither weights nor jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import RLock

import torch

#: What a slice handles at most, but for a single tensor that is larger.
SLICE_BYTES = 2**28
#: Maximum time that a slice waits for a lock before others are served again.
_PATIENCE_SECONDS = 0.01


@dataclass
class _Work:
    """Work that is cut: what is called between slices, and the bytes of the present one."""

    pause: Callable[[], object]
    bytes: int = 0


#: Each greenlet has a context of its own: what others do during a pause is not cut.
_work: ContextVar[_Work | None] = ContextVar("work", default=None)


@contextmanager
def cut(pause: Callable[[], object] | None) -> Iterator[None]:
    """Inside, work is stopped after each slice: `pause` returns when it may go on, or raises. None: it is not."""
    token = _work.set(None if pause is None else _Work(pause))
    try:
        yield
    finally:
        _work.reset(token)


@contextmanager
def holding(lock: RLock) -> Iterator[None]:
    """Hold a lock inside, but not during pauses; work that is cut pauses while another thread holds it."""
    work = _work.get()
    if work is None:
        with lock:
            yield
        return

    def acquire() -> None:
        while not lock.acquire(timeout=_PATIENCE_SECONDS):
            work.pause()

    def pause() -> None:
        lock.release()
        try:
            work.pause()
            acquire()
        except BaseException:
            lock.acquire()  # it is released where the work ends
            raise

    acquire()
    try:
        with cut(pause):
            yield
    finally:
        lock.release()


def end() -> None:
    """A slice ends here, however little it has handled."""
    work = _work.get()
    if work is not None:
        work.bytes = 0
        work.pause()


def is_full(count: int) -> bool:
    """Note so many bytes; whether the slice should end now."""
    work = _work.get()
    if work is None:
        return False
    work.bytes += count
    return work.bytes >= SLICE_BYTES


def note(count: int) -> None:
    """Note so many bytes, and end the slice where they fill it."""
    if is_full(count):
        end()


def each(tensors: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The tensors one by one; slices end between them."""
    for tensor in tensors:
        yield tensor
        note(tensor.nbytes)
