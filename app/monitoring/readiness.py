"""Whether a job sent now would be run: what is missing or full. Knows no HTTP.

Asking costs writes to the storage and to Redis, so one answer serves all who ask within a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from redis import Redis

from app.limits.disk_space import DiskSpace
from contracts.errors import Unavailable
from contracts.logs import FOR_MACHINES
from contracts.processes.workers import obstacle, read_workers
from contracts.redis.connection import check_writes, redis_errors_are_unavailable
from contracts.redis.replication import ReplicaBarrier
from contracts.storage import Storage

log = logging.getLogger(__name__)

_CACHE_SECONDS = 1.0


class Readiness:
    """The parts that a job needs, checked at most once a second."""

    def __init__(
        self,
        connection: Redis,
        storage: Storage,
        disk_space: DiskSpace,
        replicas: ReplicaBarrier,
        default_model: str,
    ) -> None:
        """`connection` decodes responses; `default_model` is that of requests which name none."""
        self._connection = connection
        self._default_model = default_model
        self._checks: list[tuple[str, Callable[[], object]]] = [
            ("storage", storage.check),
            ("storage", disk_space.check_reserve),
            ("spool", disk_space.check_spool),
            ("redis", lambda: check_writes(connection)),
            ("redis", replicas.check),
            ("workers", self._check_workers),
            ("models", self._check_default_model),
        ]
        self._lock = threading.Lock()
        self._checked_at = float("-inf")
        self._missing: Mapping[str, str] = {}
        self._has_been_ready = False
        self._told: Mapping[str, str] | None = None

    def missing(self) -> Mapping[str, str]:
        """Part (`storage`, `spool`, `redis`, `workers`, `models`) -> what is wrong with it."""
        with self._lock:
            if time.monotonic() - self._checked_at > _CACHE_SECONDS:
                self._missing = self._check()
                self._checked_at = time.monotonic()
                self._tell()
            return self._missing

    def _tell(self) -> None:
        """Log what has changed; while the service is starting, not as a warning."""
        if self._missing == self._told:
            return
        self._told = self._missing
        if self._missing:
            what = "; ".join(f"{part}: {message}" for part, message in self._missing.items())
            if self._has_been_ready:
                log.warning("not ready: %s", what)
            else:
                log.info("not ready yet: %s", what, extra=FOR_MACHINES)
        else:
            log.info("ready", extra={} if self._has_been_ready else FOR_MACHINES)
            self._has_been_ready = True

    def _check(self) -> dict[str, str]:
        missing: dict[str, str] = {}
        for part, check in self._checks:
            if part in ("workers", "models") and missing.keys() & {"redis", "workers"}:
                continue  # workers are known from Redis, and models from workers
            try:
                check()
            except Unavailable as error:
                missing.setdefault(part, str(error))
        return missing

    def _check_workers(self) -> None:
        """Raise Unavailable if no worker would take a job."""
        with redis_errors_are_unavailable():
            reports = read_workers(self._connection)
        if any(report.state in ("idle", "busy") for report in reports):
            return
        paused = dict.fromkeys(report.reason for report in reports if report.state == "paused")
        raise Unavailable(
            f"every worker is paused: {'; '.join(paused)}" if paused else "no worker is ready to take jobs"
        )

    def _check_default_model(self) -> None:
        """Raise Unavailable if no worker could run a job of the default model without a download, or at all."""
        with redis_errors_are_unavailable():
            reports = read_workers(self._connection)
        obstacles = [obstacle(self._default_model, report) for report in reports]
        states = dict.fromkeys(one.state for one in obstacles if one is not None)
        if states and None not in obstacles:
            raise Unavailable(f"no worker can use the default model yet: {', '.join(states)}")
