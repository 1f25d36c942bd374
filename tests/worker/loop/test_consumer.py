"""The consumer in this process, on a real Redis: signals, foreign functions, lost leases, late completion."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer

from contracts.catalogue.catalogue import Catalogue
from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobState
from contracts.leases.claim import Claim
from contracts.memory.policy import Policy
from contracts.metrics import Counters, read_totals
from contracts.processes.workers import WorkerReport, read_workers
from contracts.queue.client import JobQueue
from contracts.queue.new_job import FORMER_RUN_FUNCTIONS
from contracts.queue.usage.counts import read_usage, today
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import Priority
from contracts.settings import SharedSettings
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from tests.support.jobs import complete_job, make_job
from tests.support.parameters import parameters
from tests.support.workers import at_step, make_consumer, only, send_sigterm, work_until_ended
from worker.loop.progress import JobWatch
from worker.pool.pool import Pool
from worker.pool.prompts_ahead import PromptsAhead


def test_jobs_complete(settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage) -> None:
    ids = [queue.submit(parameters(seed=number, batchable=number > 0)).id for number in range(4)]
    ended = work_until_ended(make_consumer(settings, pool, storage), queue, *ids)
    assert [record.state for record in ended] == [JobState.COMPLETED] * 4
    assert all(storage.exists(record.images[0].key) for record in ended)


def test_a_worker_reports_its_models_memory_and_stage_times(
    settings: SharedSettings, queue: JobQueue, storage: Storage, shipped: Catalogue
) -> None:
    ids = [queue.submit(parameters(seed=5, batchable=False)).id for _ in range(2)]
    consumer = make_consumer(settings, Pool(only(shipped, "sdxl"), device="cpu", budget_bytes=2**30), storage)
    ended = work_until_ended(consumer, queue, *ids)
    report = WorkerReport(id="any", **consumer._report())
    (model,) = report.models
    assert [model] == report.warm
    assert report.in_host_memory == []
    assert report.models[model].plan == "all resident"
    assert report.models[model].resident_bytes == report.resident_bytes
    assert report.budget_bytes == int(2**30 * 0.95)
    lookups = [record.receipt.embeddings for record in ended if record.receipt]
    assert report.embeddings.hits == sum(one.hits for one in lookups) > 0
    assert report.embeddings.misses == sum(one.misses for one in lookups) == report.embeddings.entries
    assert report.embeddings.bytes > 0
    for stage in ("queue", "load", "encode_prompt", "denoise", "decode", "write"):
        spent = sum(record.receipt.timings[stage] for record in ended if record.receipt)
        assert report.stage_seconds[stage] == pytest.approx(spent, abs=1e-3)
    drawn = [record.receipt.energy for record in ended if record.receipt and record.receipt.energy]
    (used,) = read_usage(queue.connection, today(queue.connection), today(queue.connection))
    computed = [record.receipt.flops for record in ended if record.receipt and record.receipt.flops]
    assert {(one.source, one.assumed_flops_per_joule) for one in drawn} == {("estimated", 8e9)}
    assert [one.joules for one in drawn] == [round(flops / 8e9, 3) for flops in computed]
    assert used.estimated_joules == used.joules == pytest.approx(sum(one.joules for one in drawn), abs=1e-2)


def test_a_job_that_names_another_function_fails_and_is_logged(
    settings: SharedSettings,
    queue: JobQueue,
    rq_connection: Redis,
    pool: Pool,
    storage: Storage,
    tmp_path: object,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = queue.submit(parameters())
    evil = RqJob.create(
        "os.system", args=[f"touch {tmp_path}/owned"], id=job.id, connection=rq_connection,
        serializer=JSONSerializer,
    )  # fmt: skip
    evil.save()
    (ended,) = work_until_ended(make_consumer(settings, pool, storage), queue, job.id)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error.code is FailureCode.REFUSED_FUNCTION
    assert not os.path.exists(f"{tmp_path}/owned")  # noqa: PTH110
    assert "os.system" in caplog.text


def test_a_job_whose_rq_record_another_server_has_is_left_to_its_lease(
    settings: SharedSettings, queue: JobQueue, rq_connection: Redis, pool: Pool, storage: Storage
) -> None:
    """After a failover the connection for RQ may lead to the old primary for a moment."""
    job = queue.submit(parameters())
    name = f"rq:job:{job.id}"
    rq_connection.rename(name, "elsewhere")
    pool.model("shapes-sdxl")
    consumer = make_consumer(settings, pool, storage)
    assert consumer._claim() is None
    assert queue.fetch(job.id).state is JobState.RUNNING, "nobody has failed it"
    rq_connection.delete(name)  # the claim wrote its status there
    rq_connection.rename("elsewhere", name)
    (ended,) = work_until_ended(consumer, queue, job.id)
    assert ended.state is JobState.COMPLETED


@pytest.mark.parametrize("function", FORMER_RUN_FUNCTIONS)
def test_a_job_that_an_earlier_release_queued_runs(
    function: str, settings: SharedSettings, queue: JobQueue, rq_connection: Redis, pool: Pool, storage: Storage
) -> None:
    job = queue.submit(parameters())
    RqJob.create(function, args=[job.id], id=job.id, connection=rq_connection, serializer=JSONSerializer).save()
    (ended,) = work_until_ended(make_consumer(settings, pool, storage), queue, job.id)
    assert ended.state is JobState.COMPLETED


def test_defect_d_a_signal_at_any_moment_of_a_claim_loses_no_job(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    """A stock RQ worker with two queues lost four of 25 jobs to SIGTERMs between its pop and its registration."""
    ids = [queue.submit(parameters(batchable=False), priority=tier).id for tier in Priority for _ in range(5)]
    for number in range(25):
        consumer = make_consumer(settings, pool, storage)
        consumer._shutdown.install()
        timer = threading.Timer(0.0005 * number, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        claim: Claim | None = None
        while claim is None and not consumer._shutdown.requested:
            claim = consumer._claim()
        timer.join()
        if claim is not None:
            assert consumer._claimer._claims.release(claim)
    waiting = [id for record in map(queue.fetch, ids) if record.state is JobState.QUEUED for id in [record.id]]
    assert sorted(waiting) == sorted(ids)
    assert queue.connection.zcard("darkroom:leases") == 0


def test_a_worker_that_lost_its_lease_drops_the_result_and_deletes_its_files(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    job = queue.submit(parameters(num_inference_steps=60, batchable=False))

    def steal() -> None:
        queue.connection.hset(f"darkroom:job:{job.id}", "lease", "another execution")
        send_sigterm()

    with at_step(2, job.id, steal):
        make_consumer(settings, pool, storage).start([])
    assert queue.fetch(job.id).state is JobState.RUNNING
    assert storage.find("images/") == []


def test_a_worker_is_listed_while_it_works_and_not_afterwards(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage, catalogue: Catalogue
) -> None:
    consumer = make_consumer(settings, pool, storage, name="the-worker")
    seen: list[str] = []

    def look() -> None:
        while not seen:
            seen.extend(report.state for report in read_workers(queue.connection) if report.state == "idle")
            time.sleep(0.01)
        # Its first report comes before it has taken over the signals; this one would end the tests themselves.
        while signal.getsignal(signal.SIGTERM) == before:
            time.sleep(0.01)
        send_sigterm()

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    consumer.start([catalogue.default_model])
    thread.join()
    assert seen == ["idle"]
    assert read_workers(queue.connection) == []


class GatedStorage(LocalStorage):
    """A storage that writes images only when its gate is open."""

    gate = threading.Event()

    def write(self, key: str, data: bytes) -> None:
        """Wait for the gate, then write."""
        assert self.gate.wait(60), f"{key} waited for ever"
        super().write(key, data)


def test_the_next_job_is_generated_while_images_of_the_last_one_are_written(
    settings: SharedSettings, queue: JobQueue, pool: Pool, tmp_path: Path
) -> None:
    storage = GatedStorage(tmp_path / "gated")
    first, second = (queue.submit(parameters(batchable=False, seed=number)) for number in range(2))

    def open_gate() -> None:
        assert not queue.fetch(first.id).state.is_final
        storage.gate.set()

    consumer = make_consumer(settings, pool, storage, max_jobs=1)  # the second starts when the first was generated
    with at_step(1, second.id, open_gate):
        ended = work_until_ended(consumer, queue, first.id, second.id)
    assert [record.state for record in ended] == [JobState.COMPLETED] * 2


@pytest.mark.parametrize("max_jobs", [1, 16])
def test_the_next_jobs_prompt_is_encoded_while_this_one_denoises(
    max_jobs: int,
    settings: SharedSettings,
    queue: JobQueue,
    storage: Storage,
    catalogue: Catalogue,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The steps of one job wait until T5 has read the other job's prompt."""
    prompts = ("a red circle", "a blue square on a white background")
    steps = 5
    requests = [make_job(catalogue, "flux", prompt=prompt, num_inference_steps=steps) for prompt in prompts]
    encode, step, encoded = PromptsAhead.encode, JobWatch.step, threading.Event()

    def encode_and_tell(
        self: PromptsAhead, job: JobParameters, goes_on: Callable[[], bool], owner: str = ""
    ) -> int:
        count = encode(self, job, goes_on, owner)
        if count:
            encoded.set()
        return count

    def step_on(self: JobWatch, number: int, steps: int) -> None:
        step(self, number, steps)
        # Only between steps can what the other thread looks for be asked of it: each waits for a while.
        assert encoded.wait(6) or number < steps, "nobody encoded it"

    counters = Counters()
    ahead = Pool(catalogue, device="cpu", policy=Policy(t5="cpu"), encodes_ahead=True, counters=counters)
    ids = [queue.submit(request).id for request in requests]
    with monkeypatch.context() as patch:
        patch.setattr(PromptsAhead, "encode", encode_and_tell)
        patch.setattr(JobWatch, "step", step_on)
        # With room for one job, the second waits in the queue; else in flight.
        ended = work_until_ended(make_consumer(settings, ahead, storage, counters, max_jobs=max_jobs), queue, *ids)
    receipts = [record.receipt for record in ended if record.receipt]
    # Of two jobs in flight that came at the same moment, either may be served first.
    found = [(receipt.embeddings.misses, receipt.embeddings.ahead) for receipt in receipts]
    assert sorted(found) == [(1, 0), (1, 1)]
    expected = [complete_job(request, pool, storage)[0] for request in requests]
    assert [[storage.read(image.key) for image in record.images] for record in ended] == expected
    totals = {row.name: samples for row, samples in read_totals(queue.connection)}
    for name in ("prompts_encoded_ahead", "prompts_found_ahead"):
        assert [(one.labels, one.parts[""]) for one in totals[name]] == [(("shapes-flux",), 1)]


class _BrokenStorage(LocalStorage):
    """A storage with a bug, which is not an outage."""

    def write(self, key: str, data: bytes) -> None:
        raise TypeError("a bug")


def test_a_bug_in_the_completion_of_the_last_job_ends_the_process_with_an_error(
    settings: SharedSettings, queue: JobQueue, pool: Pool, tmp_path: Path
) -> None:
    job = queue.submit(parameters())
    consumer = make_consumer(settings, pool, _BrokenStorage(tmp_path))

    with at_step(2, job.id, send_sigterm), pytest.raises(TypeError, match="a bug"):
        consumer.start([])


def test_a_job_that_hangs_in_a_step_is_a_fault(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    job = queue.submit(parameters())
    consumer = make_consumer(settings, pool, storage, stall_seconds=0.2)
    found: list[str | None] = []

    def hang() -> None:
        found.append(consumer.find_fault(hang_seconds=30))
        time.sleep(0.3)
        found.append(consumer.find_fault(hang_seconds=30))

    with at_step(2, job.id, hang):
        work_until_ended(consumer, queue, job.id)
    assert found[1] == "no step for 0 s"
    assert consumer.find_fault(hang_seconds=30) is None, "the next step was a sign of life"
