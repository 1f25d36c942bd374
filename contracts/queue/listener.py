"""Waiting for work: the scripts announce it in a Redis channel, so that nobody needs to poll often.

An announcement carries no data, and one that is lost with the connection is not repeated: the caller looks for
work after each wait, however it ended. Does not know what kind of work it is.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from queue import Empty, SimpleQueue

from redis import Redis
from redis.exceptions import RedisError

from contracts.processes.background import BackgroundThread

_log = logging.getLogger(__name__)

#: After this time without a message the connection is pinged, and must answer within the same time.
_SILENCE_SECONDS = 5.0
_RECONNECT_SECONDS = 0.5
#: How long `close` waits for the thread, which Redis may keep longer when it does not answer.
_CLOSE_SECONDS = 2.0


class WorkListener:
    """Subscription to a channel in which work is announced, for one waiting thread."""

    def __init__(self, connection: Redis, channel: str) -> None:
        """`connection` may decode responses or not; the listener takes a connection of its own from its pool."""
        self._connection = connection
        self._channel = channel
        self._thread = BackgroundThread("listener")
        # `put` is safe in a signal handler, which `threading.Event.set` is not.
        self._wakes: SimpleQueue[None] = SimpleQueue()

    def start(self) -> None:
        """Subscribe in the background; while Redis is away, retry."""
        self._thread.repeat(self._listen, _RECONNECT_SECONDS)

    def close(self) -> None:
        """End the subscription and its thread. Close the listener before its connection."""
        self._thread.close(timeout_seconds=0)
        with suppress(RedisError):
            self._connection.publish(
                self._channel, ""
            )  # ends the thread's read; other listeners only look for work
        self._thread.close(_CLOSE_SECONDS)

    def wake(self) -> None:
        """End the current wait, or the next one. Safe in any thread and in signal handlers."""
        if self._wakes.empty():
            self._wakes.put(None)

    def wait(self, seconds: float) -> None:
        """Return at the next announcement or `wake`, or after `seconds`."""
        with suppress(Empty):
            self._wakes.get(timeout=seconds)

    def was_woken(self) -> bool:
        """Whether there was an announcement or a `wake` since the last wait; does not wait."""
        try:
            self._wakes.get_nowait()
        except Empty:
            return False
        return True

    def _listen(self) -> None:
        """Listen until the connection is lost or dead."""
        try:
            with self._connection.pubsub() as subscription:  # type: ignore[no-untyped-call]
                subscription.subscribe(self._channel)
                pinged = False
                while not self._thread.closing:
                    message = subscription.get_message(timeout=_SILENCE_SECONDS)
                    if message is None and pinged:
                        return
                    if message is None:
                        subscription.ping()
                    elif message["type"] in ("subscribe", "message"):
                        self.wake()  # after a subscription, too: announcements before it were missed
                    pinged = message is None
        except RedisError as error:
            if not self._thread.closing:
                _log.warning("listening for work: Redis does not answer, polling meanwhile: %s", error)
