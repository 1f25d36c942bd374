"""Generates the images of one job on an engine of its own, where there are no other jobs. Knows no queue."""

from __future__ import annotations

from contracts.jobs.events import Preview
from contracts.storage import Storage
from worker.engine.engine import Engine
from worker.engine.job import Job, JobInFlight
from worker.generation.generate import JobGeneration
from worker.generation.results.outputs import JobResult
from worker.generation.steps.listener import Watch
from worker.pool.pool import Pool


class Unwatched:
    """Watch that ignores everything."""

    def step(self, step: int, steps: int) -> None:
        """Ignore a step."""

    def preview(self, preview: Preview) -> None:
        """Ignore a preview."""


def generate_alone(job: Job, pool: Pool, storage: Storage, watch: Watch | None = None) -> JobResult:
    """Generate; see `JobGeneration.run`.

    Raises:
        BaseException: what `JobGeneration.run` raises, and what the watch raises.
    """
    engine = Engine(pool)

    def work(flight: JobInFlight) -> JobResult:
        return JobGeneration(flight, engine, pool, storage, watch or Unwatched()).run()

    flight = engine.start(job, work)
    try:
        while engine.jobs:
            engine.tick()
    finally:
        engine.close()
    if flight.coroutine.error is not None:
        raise flight.coroutine.error
    result: JobResult = flight.result
    return result
