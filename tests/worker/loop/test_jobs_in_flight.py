"""Several jobs in flight in one worker: in which order they make their steps, and what ends one of them or all."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from contracts.jobs.records import JobState
from contracts.leases.claims import Claims
from contracts.metrics import read_totals
from contracts.queue.client import JobQueue
from contracts.requests.schema import Priority
from contracts.settings import QueueSettings, SharedSettings
from contracts.storage import Storage
from tests.support.claims import take
from tests.support.jobs import decode_pixels, generate_pixels
from tests.support.parameters import parameters
from tests.support.waiting import wait_until
from tests.support.workers import after_each_step, at_step, make_consumer, send_sigterm, work_until_ended
from worker.engine.engine import Engine
from worker.engine.job import JobInFlight
from worker.generation.generate import JobGeneration
from worker.loop.job_work import QueueClock
from worker.pool.model import LoadedModel
from worker.pool.pool import Pool
from worker.runtime.out_of_memory import DeviceFailed


def must_not_happen(*_: object) -> None:
    raise AssertionError("the job goes on")


def check_handed_back(queue: JobQueue, ids: list[str], storage: Storage) -> None:
    records = [queue.fetch(id) for id in ids]
    assert [(record.state, record.attempts) for record in records] == [(JobState.QUEUED, 0)] * len(ids)
    assert storage.find("images/") == []


def test_a_second_signal_releases_all_jobs_in_flight_without_spending_an_attempt(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    consumer = make_consumer(settings, pool, storage)
    ids = [queue.submit(parameters(num_inference_steps=200, batchable=number > 0)).id for number in range(3)]
    in_flight: list[int] = []

    def hurry(_: str, step: int) -> None:
        if step == 2 and not in_flight:
            in_flight.append(len(consumer._engine.jobs))
            send_sigterm()
            time.sleep(0.05)  # two signals at one moment are one
            send_sigterm()
        elif step > 2:
            must_not_happen()

    with after_each_step(hurry):
        consumer.start([])
    assert in_flight == [3]
    check_handed_back(queue, ids, storage)
    places = [queue.eta.position(queue.fetch(id)) for id in ids]
    assert {place.ahead for place in places if place} == {0, 1, 2}


def test_the_end_of_the_drain_time_releases_all_jobs_in_flight_too(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    ids = [queue.submit(parameters(num_inference_steps=200, batchable=False)).id for _ in range(2)]
    signals: list[int] = []

    def stop_once(_: str, step: int) -> None:
        if step == 2 and not signals:
            signals.append(step)
            send_sigterm()

    with after_each_step(stop_once):
        make_consumer(settings, pool, storage, drain_seconds=0.2).start([])
    check_handed_back(queue, ids, storage)


def test_a_cancelled_job_does_not_change_the_other_images_that_were_in_flight_with_it(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    def files_of(cancelled: bool) -> list[bytes]:
        """The images of a job with an exact seed, and of one that may be joined with the cancelled job."""
        ids = [
            queue.submit(parameters(num_inference_steps=5, seed=number, batchable=number > 0)).id
            for number in range(3)
        ]
        consumer = make_consumer(settings, pool, storage, report_seconds=0)
        with at_step(2, ids[1], lambda: cancelled and queue.cancel(ids[1])):
            ended = work_until_ended(consumer, queue, *ids)
        assert ended[1].state is (JobState.CANCELLED if cancelled else JobState.COMPLETED)
        assert ended[1].progress.step == (2 if cancelled else 5)
        assert storage.find(f"images/{ids[1]}/") == [image.key for image in ended[1].images]
        return [storage.read(record.images[0].key) for record in (ended[0], ended[2])]

    (exact, joined), (expected_exact, expected_joined) = files_of(cancelled=True), files_of(cancelled=False)
    assert exact == expected_exact
    assert abs(decode_pixels(joined) - decode_pixels(expected_joined)).max() <= 1


def test_a_large_image_and_small_ones_that_are_in_flight_together_are_as_they_are_alone(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    sides = (64, 192, 64, 64)
    requests = {side: parameters(seed=side, width=side, height=side, num_inference_steps=3) for side in sides}
    consumer = make_consumer(settings, pool, storage)
    ended = work_until_ended(consumer, queue, *[queue.submit(requests[side]).id for side in sides])
    assert [record.state for record in ended] == [JobState.COMPLETED] * 4
    assert ended[1].receipt is not None
    assert not ended[1].receipt.joined
    alone = {side: generate_pixels(request, pool, storage) for side, request in requests.items()}
    for record, side in zip(ended, sides, strict=True):
        assert abs(decode_pixels(storage.read(record.images[0].key)) - alone[side]).max() <= 1


def test_a_high_job_makes_its_first_step_within_one_call_of_a_long_low_one_and_ends_before_it(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    # So short an interval between two looks that it does not matter when the announcement comes.
    consumer = make_consumer(settings, pool, storage, poll_seconds=0.0001)
    low = queue.submit(parameters(num_inference_steps=16, batchable=False), priority=Priority.LOW).id
    steps: list[tuple[str, int]] = []

    def note(id: str, step: int) -> None:
        steps.append(("low" if id == low else "high", step))
        if steps[-1] == ("low", 4):
            queue.submit(parameters(num_inference_steps=3, batchable=False), priority=Priority.HIGH)

    with after_each_step(note):
        (ended,) = work_until_ended(consumer, queue, low)
    after = steps[steps.index(("low", 4)) + 1 :]
    first = after.index(("high", 1))
    assert first <= 1
    assert after[first : first + 3] == [("high", step) for step in range(1, 4)]
    assert after[-1] == ("low", 16)
    assert ended.receipt is not None
    assert (ended.state, ended.receipt.pauses > 0) == (JobState.COMPLETED, True)


def test_first_come_first_served_runs_one_job_after_another(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    ids = [queue.submit(parameters(num_inference_steps=steps)).id for steps in (3, 1, 2)]
    order: list[str] = []
    consumer = make_consumer(settings, pool, storage, scheduling="fifo")
    with after_each_step(lambda id, step: order.append(id)):
        ended = work_until_ended(consumer, queue, *ids)
    assert order == [ids[0]] * 3 + [ids[1]] + [ids[2]] * 2
    assert [record.receipt.joined for record in ended if record.receipt] == [False] * 3


def test_jobs_in_flight_are_at_most_the_setting_and_the_next_starts_when_one_has_ended(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    ids = [queue.submit(parameters(num_inference_steps=3)).id for _ in range(5)]
    consumer = make_consumer(settings, pool, storage, max_jobs=2)
    in_flight: list[int] = []
    with after_each_step(lambda id, step: in_flight.append(len(consumer._engine.jobs))):
        ended = work_until_ended(consumer, queue, *ids)
    assert [record.state for record in ended] == [JobState.COMPLETED] * 5
    assert max(in_flight) == 2


def test_a_job_whose_worker_was_lost_runs_alone(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    suspect = queue.submit(parameters(num_inference_steps=6)).id
    lost = Claims(queue.connection, QueueSettings(lease_seconds=0.01), "lost", 60)
    take(lost)
    wait_until(lambda: lost.reap() == (1, []))
    others = [queue.submit(parameters(num_inference_steps=3)).id for _ in range(3)]
    consumer = make_consumer(settings, pool, storage)
    company: dict[str, int] = {}

    def note(id: str, step: int) -> None:
        company[id] = max(company.get(id, 0), len(consumer._engine.jobs))

    with after_each_step(note):
        ended = work_until_ended(consumer, queue, suspect, *others)
    assert [record.state for record in ended] == [JobState.COMPLETED] * 4
    assert company[suspect] == 1
    assert max(company[id] for id in others) == 3


@pytest.mark.parametrize("failing", ["worker.pool.pool.Pool.ready", "worker.engine.calls.make"])
def test_a_worker_whose_device_fails_hands_all_jobs_in_flight_back_and_ends(
    settings: SharedSettings,
    queue: JobQueue,
    pool: Pool,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
) -> None:
    """While it loads a model, or in a call that jobs share."""

    def fail(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(failing, fail)
    ids = [queue.submit(parameters(batchable=number > 0)).id for number in range(3)]
    with pytest.raises(DeviceFailed, match="illegal memory access"):
        make_consumer(settings, pool, storage).start([])
    check_handed_back(queue, ids, storage)
    totals = {row.name: samples for row, samples in read_totals(queue.connection)}
    assert [sample.parts[""] for sample in totals["device_failures"]] == [1]


def test_a_cancel_before_the_first_step_acts_at_the_end_of_the_stage(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = queue.submit(parameters())
    consumer, ready = make_consumer(settings, pool, storage), Pool.ready

    def load_and_cancel(self: Pool, *about: Any) -> LoadedModel:
        queue.cancel(job.id)
        wait_until(lambda: consumer._jobs._watches[job.id].verdict == "cancel")
        return ready(self, *about)

    monkeypatch.setattr(Pool, "ready", load_and_cancel)
    monkeypatch.setattr(LoadedModel, "encoder", must_not_happen)
    (ended,) = work_until_ended(consumer, queue, job.id)
    assert (ended.state, ended.progress.step) == (JobState.CANCELLED, 0)


def test_a_bug_that_ends_one_job_does_not_cost_another_its_completion(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [queue.submit(parameters(batchable=True)).id for _ in range(2)]
    receipt, tick, first = JobGeneration._receipt, Engine.tick, list[str]()

    def exit_in_the_first(self: JobGeneration, *arguments: Any) -> Any:
        if not first:
            first.append(self._job.id)
            raise SystemExit("a library ends the process")
        return receipt(self, *arguments)

    def tick_until_both_end(self: Engine) -> list[JobInFlight]:
        ended = tick(self)
        while ended and self.jobs:
            ended += tick(self)
        return ended

    monkeypatch.setattr(JobGeneration, "_receipt", exit_in_the_first)
    monkeypatch.setattr(Engine, "tick", tick_until_both_end)
    with pytest.raises(SystemExit, match="a library"):
        make_consumer(settings, pool, storage).start([])

    (second,) = set(ids) - set(first)
    assert queue.fetch(second).state is JobState.COMPLETED


def test_the_order_of_jobs_does_not_depend_on_how_long_their_claims_took_to_read() -> None:
    clock = QueueClock(iter([2.5, 3.0]).__next__)
    first = clock.local(1000.0, now=1002.0)  # read half a second after it was claimed, and the second at once
    second = clock.local(1000.001, now=1003.0)
    assert second - first == pytest.approx(0.001)


def test_a_clock_that_was_set_is_believed() -> None:
    clock = QueueClock(iter([0.0, 10.0]).__next__)
    assert clock.local(990.0, now=1000.0) == -10.0
    assert clock.local(4990.0, now=5000.0) == 0.0
