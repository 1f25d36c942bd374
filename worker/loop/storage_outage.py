"""A worker's behaviour while the storage takes no images: claim nothing, keep what is generated, and try again.

The images of a few jobs wait in memory: of those that are being written, and of those in flight, which go on.
Knows no queue.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from contracts.errors import Unavailable
from contracts.storage import Storage

_log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 2.0
#: Time between two probes of a storage for which no image waits.
_PROBE_SECONDS = 1.0


class StorageOutage:
    """State of the storage as one worker's writes find it; safe for all threads.

    Attributes:
        reason: why it does not; empty while it does.
    """

    def __init__(self, storage: Storage, retry_seconds: float) -> None:
        """`retry_seconds`: how long an outage may last before images that wait for its end are given up."""
        self.reason = ""
        self._storage = storage
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._began_at = 0.0
        self._probed_at = 0.0
        self._waiting_writes = 0

    def write(self, key: str, data: bytes, may_wait: Callable[[], bool]) -> None:
        """Write a file, again and again while the storage refuses it.

        Args:
            may_wait: asked before each pause, of at most two seconds: whether the file is still wanted.

        Raises:
            Unavailable: the file is no longer needed, or the outage lasts for longer than `retry_seconds`.
        """
        try:
            self._storage.write(key, data)
            return
        except Unavailable as error:
            self._begin(error)
        with self._lock:
            self._waiting_writes += 1
        try:
            self._repeat(key, data, may_wait)
        finally:
            with self._lock:
                self._waiting_writes -= 1
        self._end_unless_writes_wait()

    def is_over(self) -> bool:
        """Whether jobs may be claimed. A write that waits is the probe; without one, the storage is checked."""
        if not self.reason:
            return True
        if not self._waiting_writes and time.monotonic() - self._probed_at >= _PROBE_SECONDS:
            self._probed_at = time.monotonic()
            with suppress(Unavailable):
                self._storage.check()
                self._end_unless_writes_wait()
        return not self.reason

    def confirms(self, error: Unavailable) -> bool:
        """Whether the storage as a whole is away, not only the file whose reading raised this error."""
        try:
            self._storage.check()
        except Unavailable:
            self._begin(error)
            return True
        return False

    def _repeat(self, key: str, data: bytes, may_wait: Callable[[], bool]) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            wanted = may_wait() and time.monotonic() - self._began_at < self._retry_seconds
            if wanted:
                time.sleep(pause_seconds)
                pause_seconds = min(_LONGEST_PAUSE_SECONDS, pause_seconds * 2)
            try:
                self._storage.write(key, data)
                return
            except Unavailable as error:
                if not wanted:
                    raise
                self.reason = str(error)

    def _begin(self, error: Unavailable) -> None:
        with self._lock:
            if not self.reason:
                self._began_at = time.monotonic()
                _log.error("no jobs are claimed until images can be stored again: %s", error)
            self.reason = str(error)

    def _end_unless_writes_wait(self) -> None:
        with self._lock:
            if self.reason and not self._waiting_writes:
                self.reason = ""
                _log.warning("images can be stored again; jobs are claimed")
