"""A process's entry among RQ's workers, which `rq info` and RQ's dashboards show; and RQ's commands to it.

RQ's own work loop is not used: it takes one job at a time, sends no heartbeat while one runs, and may lose or
repeat jobs when it dies. Our claims are atomic scripts instead. Knows no kind of job.
"""

from __future__ import annotations

import logging
import time
from types import TracebackType

from redis import Redis
from redis.client import PubSub, PubSubWorkerThread
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer
from rq.suspension import is_suspended
from rq.worker import WorkerStatus

_log = logging.getLogger(__name__)

#: RQ drops an entry that was not refreshed for eight minutes.
_REFRESH_SECONDS = 60.0
#: Pause before the subscription to RQ's commands is made again.
_RECONNECT_SECONDS = 2.0


class _Worker(SimpleWorker):
    """RQ's worker, for its registration only."""

    def _set_connection(self, connection: Redis) -> Redis:
        """RQ would raise the socket timeout to seven minutes, for a blocking read that we do not make."""
        return connection

    def _pubsub_exception_handler(self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread) -> None:
        """Subscribe again after any error of Redis; RQ's own ends the thread for good after a timeout."""
        del pubsub, pubsub_thread
        if not isinstance(exc, RedisError):
            raise exc
        _log.warning("RQ's commands to this worker are not received, trying again: %s", exc)
        time.sleep(_RECONNECT_SECONDS)


class RqRegistration:
    """An entry among RQ's workers, from `with` to the end of the block.

    If Redis is unavailable meanwhile, the entry is not updated and nothing is raised.
    """

    def __init__(self, connection: Redis, name: str) -> None:
        """`connection` returns bytes, as RQ expects; `name` is unique among all of RQ's workers."""
        self._connection = connection
        # RQ lists workers by their queues. Ours serve all of them, so they register with one that stays empty.
        self._queue = Queue("darkroom", connection=connection, serializer=JSONSerializer)
        self._worker = _Worker([self._queue], name=name, connection=connection, serializer=JSONSerializer)
        self._state: WorkerStatus | None = None
        self._refresh_at = 0.0

    def __enter__(self) -> RqRegistration:
        """Register, and handle RQ's commands to this worker from now on; `shutdown` sends SIGINT."""
        logging.getLogger("rq.worker").setLevel(logging.WARNING)
        self._connection.sadd(Queue.redis_queues_keys, self._queue.key)
        self._worker.register_birth()  # type: ignore[no-untyped-call]
        self._worker.subscribe()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._worker.teardown()  # type: ignore[no-untyped-call]
        except RedisError as failure:
            _log.warning("RQ's entry of this worker was not removed, it expires by itself: %s", failure)

    @property
    def is_suspended(self) -> bool:
        """Whether `rq suspend` asks the workers to take no jobs; shown as this worker's state."""
        try:
            suspended = bool(is_suspended(self._connection))
        except RedisError as error:
            _log.warning("rq suspend: not read, Redis does not answer: %s", error)
            return False
        if suspended:
            self.show(WorkerStatus.SUSPENDED)
        return suspended

    def show(self, state: WorkerStatus) -> None:
        """Write this worker's state, if it has changed, and keep its entry from expiring."""
        try:
            if state != self._state:
                self._worker.set_state(state)
                self._state = state
            if time.monotonic() >= self._refresh_at:
                self._worker.heartbeat()
                self._refresh_at = time.monotonic() + _REFRESH_SECONDS
        except RedisError as error:
            _log.warning("RQ's entry of this worker was not written: %s", error)
