"""When jobs will end, and where they stand: reads the queue's state, and asks `contracts.forecast`.

Many clients poll: of a queue with more than a few jobs, one forecast serves all of them for a while, and forecasts
take a bounded part of the process' time. Keeps no state that another process would need.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

from redis import Redis

from contracts.forecast.deep_queue import estimate_deep
from contracts.forecast.simulation import Expected, simulate
from contracts.forecast.snapshot import Place, Snapshot
from contracts.forecast.snapshot_reader import read_place, read_snapshot
from contracts.jobs.records import JobRecord, Position
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable
from contracts.requests.task_parameters import TaskParameters

Value = TypeVar("Value")

#: Retry-After of a full queue of which nothing can be predicted, and the longest.
_UNKNOWN_RETRY_SECONDS, _MAX_RETRY_SECONDS = 10, 3600
#: With at most this many jobs, each call reads the queue again.
SHORT_QUEUE = 24
#: How long a forecast of more jobs serves: at least this long, and this many times as long as it took to make.
_SHARED_SECONDS, _SHARED_TIMES = 1.0, 20.0
#: Jobs that come meanwhile are simulated too, in this part of the time at most; the others are estimated.
_SIMULATED_SHARE = 0.05
#: New jobs and paces that are remembered; beyond this, the oldest are forgotten.
_MAX_NEW, _MAX_PACES = 256, 1024

#: What is remembered of a job that is not new.
_NOTHING = (None, "")

#: Why nothing can be estimated.
NO_WORKER = "no worker that takes jobs is running"
UNMEASURED = "no similar job has been measured yet"


@dataclass(frozen=True)
class _Forecast:
    """Forecast made at one moment; one that serves many clients was made `read_at`, on this process' clock."""

    snapshot: Snapshot
    expected: dict[str, Expected]
    read_at: float | None

    def seconds_left(self, seconds: float) -> float:
        """Until a moment that was so far away when the forecast was made."""
        passed = 0.0 if self.read_at is None else time.monotonic() - self.read_at
        return max(0.0, seconds - passed)


class EtaEstimator:
    """Positions and times of jobs, estimated from measured costs and the order in which workers serve.

    Every method raises Unavailable when Redis does not answer.
    """

    def __init__(self, connection: Redis, scripts: Scripts) -> None:
        self._connection = connection
        self._scripts = scripts
        self._lock = threading.Lock()
        self._shared: _Forecast | None = None
        #: Of a short queue: for readers that accept one of a moment ago.
        self._last: _Forecast | None = None
        self._expires_at = 0.0
        self._simulates_from = 0.0
        #: Job -> where it waited when this process queued it, as `submit.lua` returns it.
        self._new: OrderedDict[str, tuple[Literal["queue", "place"], str]] = OrderedDict()
        #: Pace -> when it was read, and what is measured of it and of its model.
        self._paces: OrderedDict[str, tuple[float, list[str | None]]] = OrderedDict()

    def note_new(self, id: str, kind: Literal["queue", "place"], text: str) -> None:
        """Remember where a job was queued, by the whole queue or its place, for the answer to its call."""
        _remember(self._new, id, (kind, text), _MAX_NEW)

    def position(
        self, record: JobRecord, max_age_seconds: float = 0.0, *, is_new: bool = False
    ) -> Position | None:
        """Return a job's place in the queue now, and when it is expected to end; None when it has ended.

        Args:
            max_age_seconds: of a forecast that serves again, though the queue is short.
            is_new: it was queued just now, and where is not asked again.
        """
        if record.state.is_final:
            return None
        kind, text = self._new.pop(record.id, _NOTHING) if is_new else _NOTHING
        if kind == "queue":
            forecast = self._simulate(read_snapshot(text), None, record.id)
        else:
            forecast = self._forecast(record, max_age_seconds)
        job, found = forecast.snapshot.find(record.id), forecast.expected.get(record.id)
        if found is None and (job is None or not job.unknown):
            place = read_place(text) if kind == "place" else self._place(record)
            if place is None:  # it runs, and has begun or ended since the snapshot
                return None if job is None else Position(ahead=None, reason=_reason(forecast.snapshot, ""))
            found = self._expect_new(forecast, place)
        if found is None or found.spread is None:
            ahead = 0 if found is None else found.ahead
            reason = _reason(forecast.snapshot, "" if job is None else job.unknown)
            return Position(ahead=None if job is not None and job.worker else ahead, reason=reason)
        left = forecast.seconds_left(found.end_seconds)
        return Position(
            ahead=None if job is not None and job.worker else found.ahead,
            eta_seconds=round(left, 3),
            low_seconds=round(left * (1 - found.spread), 3),
            high_seconds=round(left / (1 - found.spread), 3),
        )

    def run_seconds(self, parameters: TaskParameters, max_age_seconds: float = 0.0) -> float | None:
        """Estimate how long such a job denoises, alone; None before the first of its model was measured.

        Args:
            max_age_seconds: of a measurement that serves again.
        """
        work = parameters.work
        pace, totals = self._read_pace(work["pace"], work["model"], max_age_seconds)
        if pace is not None:
            return float(work["image_steps"] * float(pace))
        seconds, megapixel_steps = (0.0, 0.0) if totals is None else json.loads(totals)
        return float(work["megapixel_steps"] * seconds / megapixel_steps) if megapixel_steps else None

    def _read_pace(self, pace: str, model: str, max_age_seconds: float) -> list[str | None]:
        """What is measured of a pace and of its model, as Redis has it."""
        read_at, found = self._paces.get(pace, (-math.inf, [None, None]))
        now = time.monotonic()
        if now - read_at >= max_age_seconds:
            with redis_errors_are_unavailable():
                found = cast("list[str | None]", self._connection.hmget(keys.IMAGE_PACE, [pace, model]))
            _remember(self._paces, pace, (now, found), _MAX_PACES)
        return found

    def seconds_to_next_claim(self, owner: str | None = None) -> int:
        """Estimate the seconds until a worker claims its next job, or the next one of an owner."""
        forecast = self._forecast()
        jobs = [job for queue in forecast.snapshot.queues for job in queue.jobs if owner in (None, job.owner)]
        expected = [forecast.expected[job.id] for job in jobs if job.id in forecast.expected]
        return _retry_seconds([one.claim_seconds for one in expected if one.spread is not None], forecast)

    def seconds_to_first_end(self, ids: Collection[str]) -> int:
        """Estimate the seconds until the first of these jobs ends."""
        forecast = self._forecast()
        expected = [forecast.expected[id] for id in ids if id in forecast.expected]
        return _retry_seconds([one.end_seconds for one in expected if one.spread is not None], forecast)

    def _forecast(self, record: JobRecord | None = None, max_age_seconds: float = 0.0) -> _Forecast:
        """The shared forecast while it serves, else a new one; of few jobs unless the last one is new enough."""
        with self._lock:
            if self._shared is not None and time.monotonic() < self._expires_at:
                return self._shared
            if self._last is not None and time.monotonic() - (self._last.read_at or 0.0) < max_age_seconds:
                return self._last
            with redis_errors_are_unavailable():
                text = self._scripts.run("queue_snapshot")
            read_at = time.monotonic()
            snapshot = read_snapshot(text)
            is_short = snapshot.size <= SHORT_QUEUE
            if is_short and max_age_seconds:
                self._last = self._simulate(snapshot, read_at)
                return self._last
            if is_short:
                self._shared = None
                return self._simulate(snapshot, None, None if record is None else record.id)
            self._shared = self._simulate(snapshot, read_at)
            self._expires_at = read_at + max(_SHARED_SECONDS, _SHARED_TIMES * (time.monotonic() - read_at))
            return self._shared

    def _simulate(self, snapshot: Snapshot, read_at: float | None, until: str | None = None) -> _Forecast:
        started_at = time.monotonic()
        expected = simulate(snapshot, until)
        ended_at = time.monotonic()
        self._simulates_from = ended_at + (ended_at - started_at) / _SIMULATED_SHARE
        return _Forecast(snapshot, expected, read_at)

    def _expect_new(self, forecast: _Forecast, place: Place) -> Expected | None:
        """What is expected of a waiting job that the snapshot does not have."""
        snapshot = forecast.snapshot.with_place(place)
        if not snapshot.has_read_all(place.job.tier):
            return estimate_deep(snapshot, place.job, place.ahead)
        with self._lock:
            if time.monotonic() < self._simulates_from:
                return estimate_deep(snapshot, place.job, place.ahead)
            with_new = self._simulate(snapshot, forecast.read_at)
            if self._shared is forecast:
                self._shared = with_new
        return with_new.expected.get(place.job.id)

    def _place(self, record: JobRecord) -> Place | None:
        """Where a job waits, and what it costs; None when it does not wait."""
        with redis_errors_are_unavailable():
            text = self._scripts.run("queue_place", id=record.id, queue=record.queue)
        return None if text is None else read_place(text)


def _remember(found: OrderedDict[str, Value], key: str, value: Value, most: int) -> None:
    """Put a value last, and forget the first beyond so many. Each step is atomic: threads need no lock."""
    found.pop(key, None)
    found[key] = value
    if len(found) > most:
        found.popitem(last=False)


def _reason(snapshot: Snapshot, unknown: str) -> str:
    """Why nothing can be estimated."""
    if unknown:
        return unknown
    return UNMEASURED if any(worker.claims for worker in snapshot.workers) else NO_WORKER


def _retry_seconds(seconds: Collection[float], forecast: _Forecast) -> int:
    """Whole seconds until the first of these moments, from now on."""
    if not seconds:
        return _UNKNOWN_RETRY_SECONDS
    return min(_MAX_RETRY_SECONDS, max(1, math.ceil(forecast.seconds_left(min(seconds)))))
