"""A process's entry among RQ's workers, which `rq info` and RQ's dashboards show; and RQ's commands to it.

RQ's own work loop is not used: it takes one job at a time, sends no heartbeat while one runs, and may lose or
repeat jobs when it dies. Our claims are atomic scripts instead. Knows no kind of job.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from types import TracebackType

from redis import Redis
from redis.client import Pipeline, PubSub, PubSubWorkerThread
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer
from rq.suspension import is_suspended
from rq.utils import utcformat
from rq.worker import WorkerStatus
from rq.worker_registration import unregister

from contracts.errors import SettingsError
from contracts.processes.background import BackgroundThread
from contracts.redis.connection import Scripts, redis_errors_are_unavailable

_log = logging.getLogger(__name__)

#: RQ adds a minute to a worker's own time to live.
_RQ_EXTRA_SECONDS = 60
#: Pause before a taken name is tried again.
_RETRY_SECONDS = 0.2
#: Pause before the subscription to RQ's commands is made again.
_RECONNECT_SECONDS = 2.0


class _Worker(SimpleWorker):
    """RQ's worker, for its registration only. What it writes is also written while Redis' memory is full."""

    def _set_connection(self, connection: Redis) -> Redis:
        """RQ would raise the socket timeout to seven minutes, for a blocking read that we do not make."""
        return connection

    def register_birth(self) -> None:
        """Write the entry; raises ValueError where another process has the name."""
        self.birth_date = self.last_heartbeat = datetime.now(UTC)
        is_written = Scripts(self.connection).run(
            "register_process",
            entry=self.key,
            queue=self.queue_names()[0],
            fields={name: str(value) for name, value in self.serialize().items()},
            ttl_seconds=self.worker_ttl + _RQ_EXTRA_SECONDS,
        )
        if not is_written:
            raise ValueError(f"the name {self.name!r} is taken")

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Keep the entry from expiring."""
        del pipeline
        self._write("last_heartbeat", utcformat(datetime.now(UTC)))
        self.connection.expire(self.key, timeout or self.worker_ttl + _RQ_EXTRA_SECONDS)

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Write what the process does."""
        del pipeline
        self._write("state", state)

    def register_death(self) -> None:
        """Leave RQ's sets; RQ's tools show the end for a minute."""
        # Not in a transaction, in which a full Redis refuses also what frees memory.
        with self.connection.pipeline(transaction=False) as pipeline:
            unregister(self, pipeline)
            pipeline.execute()
        self._write("death", utcformat(datetime.now(UTC)))
        self.connection.expire(self.key, _RQ_EXTRA_SECONDS)

    def _write(self, field: str, value: str) -> None:
        Scripts(self.connection).run("update_field", key=self.key, field=field, value=value)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread) -> None:
        """Subscribe again after any error of Redis; RQ's own ends the thread for good after a timeout."""
        del pubsub, pubsub_thread
        if not isinstance(exc, RedisError):
            raise exc
        _log.warning("RQ's commands to this worker are not received, trying again: %s", exc)
        time.sleep(_RECONNECT_SECONDS)


class RqRegistration:
    """An entry among RQ's workers, from `with` to the end of the block. No two live processes have the same name.

    If Redis is unavailable meanwhile, the entry is not updated and nothing is raised.
    """

    def __init__(self, connection: Redis, name: str, ttl_seconds: int = 15) -> None:
        """Prepare an entry.

        Args:
            connection: returns bytes, as RQ expects.
            name: unique among all of RQ's workers.
            ttl_seconds: how long the entry of a process that died occupies its name.
        """
        self._connection = connection
        self._ttl_seconds = ttl_seconds
        # RQ lists workers by their queues. Ours serve all of them, so they register with one that stays empty.
        self._queue = Queue("darkroom", connection=connection, serializer=JSONSerializer)
        self._worker = _Worker(
            [self._queue],
            name=name,
            connection=connection,
            serializer=JSONSerializer,
            worker_ttl=ttl_seconds - _RQ_EXTRA_SECONDS,
        )
        self._state: WorkerStatus | None = None
        # Beside the work: an entry must not expire during a long job.
        self._refreshing = BackgroundThread("registration")

    def __enter__(self) -> RqRegistration:
        """Register, and handle RQ's commands to this worker from now on; `shutdown` sends SIGINT.

        A name whose process was killed is taken over when its entry expires.

        Raises:
            SettingsError: another live process has the name.
            Unavailable: Redis does not answer.
        """
        logging.getLogger("rq.worker").setLevel(logging.WARNING)
        with redis_errors_are_unavailable():
            self._take_name()
            self._worker.subscribe()  # type: ignore[no-untyped-call]
        self._refreshing.repeat(self._refresh, self._ttl_seconds / 3)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._refreshing.close(self._ttl_seconds)
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
        """Write this worker's state, if it has changed."""
        if state == self._state:
            return
        try:
            self._worker.set_state(state)
            self._state = state
        except RedisError as error:
            _log.warning("RQ's entry of this worker was not written: %s", error)

    def _take_name(self) -> None:
        deadline, announced = time.monotonic() + self._ttl_seconds + 2, False
        while not self._register():
            if time.monotonic() > deadline:
                raise SettingsError(
                    f"the name {self._worker.name!r} belongs to another process that is running; "
                    "give each worker and dispatcher a name of its own, or none"
                )
            if not announced:
                _log.warning("the name %s is taken; waiting to see whether its process lives", self._worker.name)
                announced = True
            time.sleep(_RETRY_SECONDS)

    def _register(self) -> bool:
        """Write the entry; False if there is one of this name."""
        try:
            self._worker.register_birth()
        except ValueError:
            return False
        return True

    def _refresh(self) -> None:
        """Keep the entry from expiring; write it again if it did, because Redis was away, say."""
        try:
            if not self._register():
                self._worker.heartbeat()
            elif self._state is not None:
                self._worker.set_state(self._state)
        except RedisError as error:
            _log.warning("RQ's entry of this worker was not refreshed: %s", error)
