"""Waiting for work: the scripts announce it in a Redis channel, so that nobody needs to poll often.

An announcement carries nothing, and one that is lost with the connection is not repeated: whoever waits looks
again after each wait, however it ended. Knows no kind of work.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from queue import Empty, SimpleQueue

from redis import Redis
from redis.exceptions import RedisError

from contracts.background import BackgroundThread

_log = logging.getLogger(__name__)

#: After this much silence the connection must answer a ping within the same time.
_SILENCE_SECONDS = 5.0
_RECONNECT_SECONDS = 0.5


class WorkListener:
    """A subscription to a channel in which work is announced, for one thread that waits."""

    def __init__(self, connection: Redis, channel: str) -> None:
        """`connection` decodes responses or not; the listener takes one of its own from its pool."""
        self._connection = connection
        self._channel = channel
        self._thread = BackgroundThread("listener")
        # `put` is safe in a signal handler, which `threading.Event.set` is not.
        self._wakes: SimpleQueue[None] = SimpleQueue()

    def start(self) -> None:
        """Subscribe; while Redis is away, try again and again."""
        self._thread.repeat(self._listen, _RECONNECT_SECONDS)

    def close(self) -> None:
        """End the subscription; the thread itself ends within a few seconds."""
        self._thread.close(timeout_seconds=0)

    def wake(self) -> None:
        """End the wait that is going on, or the next one. Safe in any thread and in signal handlers."""
        if self._wakes.empty():
            self._wakes.put(None)

    def wait(self, seconds: float) -> None:
        """Return at the next announcement or `wake`, or after `seconds`."""
        with suppress(Empty):
            self._wakes.get(timeout=seconds)

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
                        self.wake()  # after a new subscription, too: what was announced before went unheard
                    pinged = message is None
        except RedisError as error:
            _log.warning("listening for work: Redis does not answer, polling meanwhile: %s", error)
