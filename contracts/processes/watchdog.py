"""Ends a process that hangs, from outside its interpreter, and tells its supervisor while it does not.

Knows nothing of the process's work: somebody says what to watch. The timer is a C thread of `faulthandler`, which
needs no interpreter lock (GIL), so it also ends a process whose native code never gives that lock back.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from contracts.processes.background import BackgroundThread

_log = logging.getLogger(__name__)

#: Exit status of a process that ended itself because a part of it was stuck; its supervisor starts another.
#: A process whose interpreter is stuck ends with status 1.
STALLED = 70
#: Environment variable with the socket of the supervisor, as in systemd's sd_notify(3).
NOTIFY_SOCKET = "NOTIFY_SOCKET"
#: Maximum time from the start of a process to its first beat. Importing torch and mapping CUDA's libraries from a
#: cold disk takes up to minutes, and holds the interpreter for part of them.
START_SECONDS = 600.0
#: Beats within the timeout. Several, so that a machine under load may delay some.
_BEATS = 4


class Watchdog:
    """Watchdog of a process, one for each: ends it with status 1 and all threads' tracebacks unless it beats."""

    def __init__(self, timeout_seconds: float) -> None:
        """Begin with the time that a process has to start; `timeout_seconds` holds from the first beat on."""
        self._timeout_seconds = timeout_seconds
        self._thread = BackgroundThread("watchdog")
        self._supervisor = _connect(os.environ.get(NOTIFY_SOCKET, ""))
        faulthandler.dump_traceback_later(max(START_SECONDS, timeout_seconds), exit=True)

    def beat(self) -> None:
        """Grant the process another `timeout_seconds`. That this runs shows that the interpreter runs."""
        faulthandler.dump_traceback_later(self._timeout_seconds, exit=True)
        if self._supervisor is not None:
            # A supervisor that is itself stopped does not read; it will not end us for that.
            with suppress(OSError):
                self._supervisor.send(b"WATCHDOG=1")

    def watch(self, find_fault: Callable[[], str | None]) -> None:
        """Beat from a background thread for as long as the process runs.

        Args:
            find_fault: asked before each beat, says what is stuck, and the process ends with status `STALLED`.
                No beat is sent until it returns.
        """

        def beat_unless_faulty() -> None:
            fault = find_fault()
            if fault is not None:
                _log.critical("%s: this process exits", fault)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(STALLED)
            self.beat()

        self._thread.repeat(beat_unless_faulty, self._timeout_seconds / _BEATS)

    def watch_event_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat for as long as this event loop, which runs in another thread, runs what it is given."""

        def wait_for_loop() -> None:
            answered = threading.Event()
            with suppress(RuntimeError):  # the loop is closed: the process is ending
                loop.call_soon_threadsafe(answered.set)
                answered.wait()

        self.watch(wait_for_loop)


def _connect(address: str) -> socket.socket | None:
    if not address:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    connection.setblocking(False)
    try:
        connection.connect("\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        _log.warning(
            "%s %s: %s; the supervisor does not get this process's heartbeats", NOTIFY_SOCKET, address, error
        )
        connection.close()
        return None
    return connection
