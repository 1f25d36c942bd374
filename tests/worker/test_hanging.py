"""Native code that never gives the interpreter back: the worker ends, and its job is retried or given up.

Workers are forked from this process, which has imported what they need.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobState
from contracts.leases.claims import Claims
from contracts.metrics import Counters
from contracts.processes.watchdog import Watchdog
from contracts.queue.client import JobQueue
from contracts.settings import BUILT_IN_CATALOGUE, QueueSettings, SharedSettings
from contracts.storage import open_storage
from tests.support.parameters import parameters
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import wait_until
from worker.generation.generate import JobGeneration
from worker.loop.heartbeat import Heartbeat
from worker.loop.progress import JobWatch, ProgressReporter
from worker.main import main
from worker.settings import WorkerSettings

LEASE_SECONDS = 1.0


def hang(_: object = None) -> None:
    """Wait for ever, and let no other thread run meanwhile."""
    ctypes.PyDLL(None).pause()


def scripted_worker() -> None:
    """A worker with its lease, heartbeat and watchdog, and without models."""
    shared, settings = SharedSettings(), WorkerSettings()
    watchdog = Watchdog(shared.hang_seconds)
    worker = ScriptedWorker(JobQueue(shared), open_storage(shared))
    worker.claims = claims = Claims(worker.claims.connection, QueueSettings(), settings.name, 60)
    heart = Heartbeat(claims, settings, lambda: {"state": "idle"}, print, Counters())
    heart.start()
    watchdog.watch(lambda: heart.find_fault(shared.hang_seconds))
    while True:
        claim = worker.claim_next()
        watch = JobWatch(ProgressReporter(claims, 0), claim)
        heart.hold(watch)
        if getattr(claim.job.parameters, "prompt", "") == "hang":
            hang()
        worker.complete(claim)
        heart.stop_holding(watch)


def hanging_worker() -> int:
    """A real worker whose jobs hang."""
    pytest.MonkeyPatch().setattr(JobGeneration, "run", hang)
    return main()


def start(program: Callable[[], int | None], environment: Mapping[str, str], log: Path) -> BaseProcess:
    """Start a program in a process of its own, which writes its standard error into a file."""
    process = get_context("fork").Process(target=_run, args=(program, environment, log))
    process.start()
    return process


def _run(program: Callable[[], int | None], environment: Mapping[str, str], log: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.stderr = log.open("w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), 2)
    sys.exit(program())


def environment(settings: SharedSettings, hang_seconds: float, max_attempts: int) -> dict[str, str]:
    return os.environ | {
        "DARKROOM_REDIS_URL": settings.redis_url,
        "DARKROOM_DATA": str(settings.data),
        "DARKROOM_HANG_SECONDS": str(hang_seconds),
        "DARKROOM_QUEUE_LEASE_SECONDS": str(LEASE_SECONDS),
        "DARKROOM_QUEUE_MAX_ATTEMPTS": str(max_attempts),
    }


def test_a_job_that_hangs_every_worker_is_given_up_and_the_next_completes(
    settings: SharedSettings, queue: JobQueue, tmp_path: Path
) -> None:
    poison = queue.submit(parameters(prompt="hang"))
    harmless = queue.submit(parameters(prompt="a red circle"))
    own = environment(settings, 1.0, max_attempts=2)
    workers = [start(scripted_worker, own, tmp_path / "log")]

    def ended() -> bool:
        if not workers[-1].is_alive():
            workers.append(start(scripted_worker, own, tmp_path / "log"))
        return all(queue.fetch(job.id).state.is_final for job in (poison, harmless))

    wait_until(ended, 120)
    workers[-1].kill()
    given_up, completed = queue.fetch(poison.id), queue.fetch(harmless.id)
    assert (completed.state, completed.attempts) == (JobState.COMPLETED, 1)
    assert (given_up.state, given_up.attempts) == (JobState.FAILED, 2)
    assert given_up.error is not None
    assert given_up.error.code is FailureCode.WORKER_LOST
    assert [worker.exitcode for worker in workers[:2]] == [1, 1]


def test_a_real_worker_that_hangs_ends_with_a_traceback_and_loses_its_job(
    settings: SharedSettings, queue: JobQueue, tmp_path: Path
) -> None:
    job = queue.submit(parameters())
    one_model, log = tmp_path / "catalogue.toml", tmp_path / "log"
    source = BUILT_IN_CATALOGUE.parent / "shapes-sdxl"
    row = f'[[models]]\nid = "shapes-sdxl"\nfamily = "sdxl"\nsource = "{source}"\n'
    one_model.write_text(f'default_model = "shapes-sdxl"\n{row}', encoding="utf-8")
    own = environment(settings, hang_seconds=3.0, max_attempts=1) | {"DARKROOM_CATALOGUE": str(one_model)}

    worker = start(hanging_worker, own, log)
    worker.join(120)

    said = log.read_text(encoding="utf-8")
    assert worker.exitcode == 1, said
    assert "in _generate" in said, "no traceback of where it hangs"
    assert queue.fetch(job.id).state is JobState.RUNNING
    time.sleep(LEASE_SECONDS)
    rules = QueueSettings(lease_seconds=LEASE_SECONDS, max_attempts=1)
    assert Claims(queue.connection, rules, "another", ttl_seconds=60).reap() == (0, [job.id])
