"""How a worker ends that loads a model, for a job or before it has any: by SIGTERM, and by a device that fails."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import pytest
import torch
from redis import Redis
from rq import Worker

from contracts.catalogue.catalogue import Catalogue
from contracts.jobs.records import JobState
from contracts.metrics import read_totals
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from tests.support.forked_programs import ForkedProgram
from tests.support.parameters import parameters
from worker.main import main as run_worker
from worker.runtime import slices

#: Tensors that are loaded before the signal.
_TENSORS = 5


def main() -> int:
    """The worker, to which something happens amid the tensors of its first load, or of its first for a job."""
    what, of_job = sys.argv[1], "for a job" in sys.argv
    count, note = 0, slices.note

    def note_and_end(size_bytes: int) -> None:
        nonlocal count
        count += not of_job or slices._work.get() is not None
        if count == _TENSORS and what == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        elif count == _TENSORS:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        note(size_bytes)

    patch = pytest.MonkeyPatch()
    patch.setattr(slices, "note", note_and_end)
    patch.setattr(slices, "SLICE_BYTES", 1)
    return run_worker()


def _end_of(settings: SharedSettings, models: Catalogue, warm: str, *words: str, **own: Any) -> tuple[int, str]:
    """Run a worker of SDXL and of a model that no hub has until it ends; returns its exit status and its log."""
    rows = {"shapes-sdxl": f"{models.root}/shapes-sdxl", "absent": "nobody/absent"}
    lines = [f'[[models]]\nid = "{id}"\nfamily = "sdxl"\nsource = "{source}"\n' for id, source in rows.items()]
    file = settings.data / "catalogue.toml"
    file.write_text("\n".join(['default_model = "absent"', *lines]))
    environment = os.environ | {
        "DARKROOM_REDIS_URL": settings.redis_url,
        "DARKROOM_DATA": str(settings.data),
        "DARKROOM_CATALOGUE": str(file),
        "DARKROOM_WORKER_WARM": json.dumps([warm]),
        "DARKROOM_WORKER_DEVICE": "cpu",
        **own,
    }
    process = ForkedProgram(__name__, environment, words=words)
    try:
        _, log = process.communicate(60)
    finally:
        process.kill()
    return process.wait(), log


@pytest.mark.parametrize(("drain_seconds", "state"), [("0", JobState.QUEUED), ("60", JobState.COMPLETED)])
def test_a_worker_that_is_stopped_while_it_loads_a_jobs_model_gives_the_job_back_unspent_or_makes_it_in_time(
    drain_seconds: str,
    state: JobState,
    settings: SharedSettings,
    queue: JobQueue,
    smaller_models: Catalogue,
    rq_connection: Redis,
) -> None:
    job = queue.submit(parameters(num_inference_steps=1))
    drain = {"DARKROOM_WORKER_DRAIN_SECONDS": drain_seconds}
    ended, log = _end_of(settings, smaller_models, "absent", "SIGTERM", "for a job", **drain)
    record = queue.fetch(job.id)
    assert (ended, record.state) == (0, state), log
    assert "job started" in log
    assert record.attempts == (state is JobState.COMPLETED)
    assert queue.connection.zcard("darkroom:leases") == 0
    assert Worker.all(rq_connection) == []


def test_a_worker_that_is_stopped_while_it_loads_its_warm_models_leaves_no_entry_of_its_own(
    settings: SharedSettings, smaller_models: Catalogue, rq_connection: Redis
) -> None:
    ended, log = _end_of(settings, smaller_models, "shapes-sdxl", "SIGTERM")
    assert ended == 0, log
    assert Worker.all(rq_connection) == []


def test_a_worker_whose_device_fails_in_a_load_ends_with_an_error_and_its_job_goes_back_unspent(
    settings: SharedSettings, queue: JobQueue, smaller_models: Catalogue, rq_connection: Redis
) -> None:
    job = queue.submit(parameters(num_inference_steps=1))
    for warm, words in (("absent", ("for a job",)), ("shapes-sdxl", ())):
        ended, log = _end_of(settings, smaller_models, warm, "device fails", *words)
        record = queue.fetch(job.id)
        assert (ended, record.state, record.attempts) == (1, JobState.QUEUED, 0), log
        assert "failed, so this process ends: CUDA error: an illegal memory access" in log
    totals = {row.name: samples for row, samples in read_totals(queue.connection)}
    assert [sample.parts[""] for sample in totals["device_failures"]] == [2]
    assert Worker.all(rq_connection) == []
