"""Reads the JSON that `queue_snapshot.lua`, `place_of` and `measured_costs` make of the queue. Opens no Redis."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from contracts.forecast.costs import Measurements, read_object
from contracts.forecast.snapshot import (
    MAX_JOBS,
    MAX_ROWS,
    TIERS,
    Place,
    QueuedJob,
    Snapshot,
    WaitingQueue,
    WorkerState,
)

#: States of workers that claim jobs.
_CLAIMING = frozenset({"starting", "idle", "busy"})


def read_place(text: str) -> Place:
    """Read what `place_of` of accounts.lua returns."""
    found = json.loads(text)
    now = float(found["now"])
    job = _job(found["job"], read_measurements(found["measured"]), now, set())
    return Place(now, job, int(found["ahead"]), float(found["account"]))


def read_snapshot(text: str) -> Snapshot:
    """Read what `queue_snapshot.lua` returns."""
    found = json.loads(text)
    now = float(found["now"])
    measurements = read_measurements(found["measured"])
    workers = [_worker(one) for one in _list(found["workers"])]
    live, paused = {worker.id for worker in workers}, frozenset(_list(found.get("paused")))
    running = [_job(one, measurements, now, live) for one in _list(found["running"])]
    queues = [
        WaitingQueue(
            tier=TIERS.index(queue["tier"]),
            owner=queue["owner"],
            length=int(queue["length"]),
            jobs=[_held(_job(one, measurements, now, live), paused) for one in _list(queue["jobs"])],
        )
        for queue in _list(found["queues"])
    ]
    tiers = [found["tiers"][name] for name in TIERS]
    return Snapshot(
        now=now,
        measurements=measurements,
        workers=workers,
        running=[job for job in running if job.worker is not None],
        # A job whose worker has died is put back at the front of its queue.
        queues=[*queues, *(WaitingQueue(one.tier, one.owner, 1, [one]) for one in running if one.worker is None)],
        accounts=[{name: float(value) for name, value in dict(tier["accounts"] or {}).items()} for tier in tiers],
        floors=[float(tier["floor"]) for tier in tiers],
        owed=[float(tier["owed"]) for tier in tiers],
        waiting_jobs=[
            int(tier["waiting"]) + sum(one.worker is None and one.tier == number for one in running)
            for number, tier in enumerate(tiers)
        ],
        lower_tier_share=float(found["share"]),
        overdue_seconds=float(found["overdue_seconds"]),
    )


def _list(value: Any) -> list[Any]:
    """Lua writes an empty list as an empty object."""
    return value if isinstance(value, list) else []


def read_measurements(found: Mapping[str, Any]) -> Measurements:
    """Read what `measured_costs` of accounts.lua returns."""
    models = {name: json.loads(text) for name, text in dict(found["models"] or {}).items()}
    calls = {name: json.loads(text) for name, text in dict(found["calls"] or {}).items()}
    seconds, megapixel_steps = json.loads(found.get("all_models") or "[0, 0]")
    return Measurements(
        paces={name: float(pace) for name, pace in dict(found["paces"] or {}).items()},
        models={name: (float(row[0]), float(row[1])) for name, row in models.items()},
        calls=calls,
        loads={name: float(load) for name, load in dict(found["loads"] or {}).items()},
        all_models=(float(seconds), float(megapixel_steps)),
    )


def _worker(found: Mapping[str, Any]) -> WorkerState:
    state = read_object(found.get("state"))
    bytes_of = state.get("model_bytes")
    warm = _list(state.get("warm"))
    return WorkerState(
        id=found["id"],
        claims=state.get("state", "idle") in _CLAIMING and not found.get("drained"),
        max_jobs=int(state.get("max_jobs") or MAX_JOBS),
        max_rows=int(state.get("max_rows") or MAX_ROWS),
        joins_seeds=state.get("joins_seeds") is True,
        warm=tuple(warm),
        budget_bytes=state.get("budget_bytes"),
        model_bytes=bytes_of if isinstance(bytes_of, dict) else {},
    )


def _job(found: Mapping[str, Any], measurements: Measurements, now: float, live: Collection[str]) -> QueuedJob:
    work, cost = read_object(found.get("work")), measurements.cost_of(found.get("work"))
    deadline_at, worker = _number(found.get("deadline_at")), found.get("worker")
    ready_in_seconds, unknown = 0.0, ""
    if worker is not None and worker not in live:
        worker, ready_in_seconds = None, max(0.0, float(found["lease_until"]) - now)
    preparing = read_object(found.get("preparing"))
    if worker is None and preparing:
        ready_in_seconds, unknown = _preparation(preparing)
    fraction = _number(read_object(found.get("progress")).get("fraction")) or 0.0
    return QueuedJob(
        id=found["id"],
        owner=found.get("owner") or "",
        tier=TIERS.index(found["tier"]) if found.get("tier") in TIERS else 1,
        model=str(work.get("model", "")),
        cost=cost,
        joins=str(work.get("joins") or ""),
        seeded=work.get("seeded") is True,
        steps_done=0.0 if worker is None else cost.steps * min(1.0, max(0.0, fraction)),
        age_seconds=max(0.0, now - (_number(found.get("created_at")) or now)),
        deadline_in_seconds=None if deadline_at is None else deadline_at - now,
        worker=worker,
        ready_in_seconds=ready_in_seconds,
        unknown=unknown,
        alone=bool(found.get("solo")),
    )


def _held(job: QueuedJob, paused: Collection[str]) -> QueuedJob:
    """A waiting job, of which nobody knows when it begins while its model is paused."""
    if "*" in paused:
        return replace(job, unknown="the operator has paused all models")
    return replace(job, unknown=f"the operator has paused {job.model}") if job.model in paused else job


def _number(value: object) -> float | None:
    """A number of a record; None where another release has written something else, or nothing."""
    try:
        return float(value) if isinstance(value, str | int | float) else None
    except ValueError:
        return None


def _preparation(found: Mapping[str, Any]) -> tuple[float, str]:
    """Seconds until the files are there that a job waits for; and why that is unknown, where it is."""
    seconds = _number(found.get("retry_seconds" if found.get("state") == "retrying" else "remaining_seconds"))
    if seconds is not None:
        return seconds, ""
    return 0.0, f"{found.get('name', 'a file')} is being prepared, and how long that takes is not known yet"
