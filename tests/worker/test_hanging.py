"""Native code that never gives the interpreter back: the worker ends, and its job is retried or given up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from cli.supervisor.process import Child
from contracts.errors import FailureCode
from contracts.jobs.records import JobState
from contracts.leases.claims import Claims
from contracts.queue.client import JobQueue
from contracts.settings import BUILT_IN_CATALOGUE, QueueSettings, SharedSettings
from tests.support.parameters import parameters
from tests.support.waiting import wait_until

LEASE_SECONDS = 1.0
#: A worker with its lease, heartbeat and watchdog, and without models.
SCRIPTED_WORKER = """
import ctypes
from contracts.metrics import Counters
from contracts.queue.client import JobQueue
from contracts.leases.claims import Claims
from contracts.settings import QueueSettings, SharedSettings
from contracts.storage import open_storage
from contracts.processes.watchdog import Watchdog
from tests.support.scripted_worker import ScriptedWorker
from worker.loop.heartbeat import Heartbeat
from worker.loop.progress import JobWatch, ProgressReporter
from worker.settings import WorkerSettings

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
    if claim.job.parameters.prompt == "hang":
        ctypes.PyDLL(None).pause()
    worker.complete(claim)
    heart.stop_holding(watch)
"""
REAL_WORKER = """
import ctypes, sys
from worker.generation.generate import JobGeneration
from worker.main import main

JobGeneration.run = lambda self: ctypes.PyDLL(None).pause()
sys.exit(main())
"""


def environment(settings: SharedSettings, hang_seconds: float, max_attempts: int) -> dict[str, str]:
    return os.environ | {
        "DARKROOM_REDIS_URL": settings.redis_url,
        "DARKROOM_DATA": str(settings.data),
        "DARKROOM_HANG_SECONDS": str(hang_seconds),
        "DARKROOM_QUEUE_LEASE_SECONDS": str(LEASE_SECONDS),
        "DARKROOM_QUEUE_MAX_ATTEMPTS": str(max_attempts),
    }


def test_a_job_that_hangs_every_worker_is_given_up_and_the_next_completes(
    settings: SharedSettings, queue: JobQueue
) -> None:
    poison = queue.submit(parameters(prompt="hang"))
    harmless = queue.submit(parameters(prompt="a red circle"))
    child = Child("worker", [sys.executable, "-c", SCRIPTED_WORKER], environment(settings, 1.0, max_attempts=2))
    child.start()

    def ended() -> bool:
        child.revive()
        return all(queue.fetch(job.id).state.is_final for job in (poison, harmless))

    wait_until(ended, 120)
    child.kill()
    given_up, completed = queue.fetch(poison.id), queue.fetch(harmless.id)
    assert (completed.state, completed.attempts) == (JobState.COMPLETED, 1)
    assert (given_up.state, given_up.attempts) == (JobState.FAILED, 2)
    assert given_up.error is not None
    assert given_up.error.code is FailureCode.WORKER_LOST


def test_a_real_worker_that_hangs_ends_with_a_traceback_and_loses_its_job(
    settings: SharedSettings, queue: JobQueue, tmp_path: Path
) -> None:
    job = queue.submit(parameters())
    one_model = tmp_path / "catalogue.toml"
    source = BUILT_IN_CATALOGUE.parent / "shapes-sdxl"
    row = f'[[models]]\nid = "shapes-sdxl"\nfamily = "sdxl"\nsource = "{source}"\n'
    one_model.write_text(f'default_model = "shapes-sdxl"\n{row}', encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-c", REAL_WORKER],
        env=environment(settings, hang_seconds=3.0, max_attempts=1) | {"DARKROOM_CATALOGUE": str(one_model)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1, done.stderr
    assert "in _generate" in done.stderr, "no traceback of where it hangs"
    assert queue.fetch(job.id).state is JobState.RUNNING
    time.sleep(LEASE_SECONDS)
    rules = QueueSettings(lease_seconds=LEASE_SECONDS, max_attempts=1)
    assert Claims(queue.connection, rules, "another", ttl_seconds=60).reap() == (0, [job.id])
