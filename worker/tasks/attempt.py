"""One attempt at a job, and what it may use of its worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image
from redis import Redis

from contracts.storage import Storage
from worker.engine.engine import Engine
from worker.engine.job import JobInFlight
from worker.generation.steps.listener import Watch
from worker.pool.pool import Pool


def _ignore(stage: str, seconds: float) -> None:
    del stage, seconds


@dataclass(frozen=True)
class Attempt:
    """One attempt at a job, inside its coroutine.

    Attributes:
        watch: is told of each step.
        on_stage: is told each stage and its seconds at its end.
        hashes_steps: whether the latents of each step are hashed, for signed receipts.
        may_show: asked of each preview; None: all may be shown.
        connection: to Redis, where what a job makes for later ones is registered; None: nothing is.
    """

    flight: JobInFlight
    engine: Engine
    pool: Pool
    storage: Storage
    watch: Watch
    worker_name: str = ""
    on_stage: Callable[[str, float], object] = _ignore
    hashes_steps: bool = False
    may_show: Callable[[Image.Image], bool] | None = None
    connection: Redis | None = None
