"""A named background thread, for calls that run beside the main work. Knows no kind of call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")


class BackgroundThread:
    """A named daemon thread that runs calls one after another, in the order in which they were submitted.

    It starts with the first call. Unlike the threads of a `ThreadPoolExecutor`, it does not keep a
    process from exiting; call `close` if the calls must finish.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()

    @property
    def closing(self) -> bool:
        """Whether `close` was called; a call that takes long should return then."""
        return self._closing.is_set()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run a call once; its result or exception is in the future.

        Raises:
            RuntimeError: the thread is closed.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001  # the future raises it
                future.set_exception(error)

        self._start(run)
        return future

    def repeat(self, call: Callable[[], object], pause_seconds: float) -> None:
        """Run a call again and again, with a pause after each, until the thread is closed.

        An exception is logged and ends only the call that raised it.

        Raises:
            RuntimeError: the thread is closed.
        """

        def run() -> None:
            while not self.closing:
                try:
                    call()
                except Exception:  # noqa: BLE001  # the next call may succeed
                    _log.exception("%s failed, it runs again in %g s", self._name, pause_seconds)
                self._closing.wait(pause_seconds)

        self._start(run)

    def close(self, timeout_seconds: float | None = None) -> None:
        """End the thread after the calls that were submitted; wait for that, at most `timeout_seconds`."""
        with self._lock:
            if not self.closing:
                self._closing.set()
                self._calls.put(None)
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _start(self, call: Callable[[], None]) -> None:
        with self._lock:
            if self.closing:
                raise RuntimeError(f"the thread {self._name!r} is closed")
            self._calls.put(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
