"""RQ's worker as Darkroom uses it: its registration and its loop, with the parts that lose jobs replaced.

Stock RQ pops jobs one by one, is silent while one runs, and loses or doubles them when it dies. Whoever builds on
this claims jobs by a script of its own, in `dequeue_job_and_maintain_ttl`. Knows no kind of job.
"""

from __future__ import annotations

import logging
import signal
import time
from types import FrameType
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty
from rq.worker import WorkerStatus

_log = logging.getLogger(__name__)

#: RQ's registration of a worker lasts eight minutes.
_BEAT_SECONDS = 60.0


class _NoAlarm(BaseDeathPenalty):
    """RQ's time limit is a SIGALRM exception, which poisons a process that goes on."""

    def setup_death_penalty(self) -> None:
        """Nothing to set up."""

    def cancel_death_penalty(self) -> None:
        """Nothing to cancel."""


class DarkroomRqWorker(SimpleWorker):
    """A worker that RQ's tools see, and that outlives a Redis which is away for a while."""

    death_penalty_class = _NoAlarm

    def __init__(self, connection: Redis, name: str) -> None:
        """`connection` returns bytes, as RQ wants it."""
        placeholder = Queue("darkroom", connection=connection, serializer=JSONSerializer)
        super().__init__([placeholder], name=name, connection=connection, serializer=JSONSerializer)
        self._next_beat_at = 0.0
        self._state_shown: WorkerStatus | None = None

    def on_stop_signal(self) -> None:
        """SIGTERM or SIGINT has come: claim nothing more."""
        self._stop_requested = True

    def rest(self, seconds: float) -> None:
        """Wait for work, and let RQ's tools see it."""
        self.show_state(WorkerStatus.IDLE)
        self.heartbeat()
        time.sleep(seconds)

    def show_state(self, state: WorkerStatus) -> None:
        """Tell RQ's tools, when there is news."""
        if state == self._state_shown:
            return
        try:
            self.set_state(state)
            self._state_shown = state
        except RedisError as error:
            _log.warning("state not written: %s", error)

    # -- RQ's own, with its dangerous parts replaced --------------------------------------------------

    def check_for_suspension(self, burst: bool) -> None:
        """`rq suspend` is heeded; a Redis that is away must not end the worker."""
        try:
            super().check_for_suspension(burst)
        except RedisError as error:
            _log.warning("suspension not read: %s", error)

    def teardown(self) -> None:
        """RQ's farewell; its registration runs out by itself where Redis is away."""
        try:
            super().teardown()  # type: ignore[no-untyped-call]
        except RedisError as error:
            _log.warning("farewell not written: %s", error)

    def run_maintenance_tasks(self) -> None:
        """RQ's clean-up would judge our leases by its own clock; our scripts reap instead."""

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """RQ's own sign of life, once a minute: its loop gives one after every job.

        A Redis that is away must not end the worker.
        """
        if pipeline is None and time.monotonic() < self._next_beat_at:
            return
        self._next_beat_at = time.monotonic() + _BEAT_SECONDS
        try:
            super().heartbeat(timeout, pipeline)
        except RedisError as error:
            _log.warning("RQ heartbeat not written: %s", error)

    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.on_stop_signal()
