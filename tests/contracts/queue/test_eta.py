"""Positions and times of jobs, on a real Redis, with workers that only report and claim."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from contracts.forecast.simulation import simulate
from contracts.forecast.snapshot_reader import read_place, read_snapshot
from contracts.jobs.preparations import Preparation
from contracts.jobs.records import JobRecord, Position, Progress
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.queue.eta import NO_WORKER, UNMEASURED
from contracts.redis import keys
from contracts.requests.schema import Priority
from tests.support.claims import MakeClaims, take
from tests.support.parameters import parameters
from tests.support.worker_reports import report_worker

#: Seconds that one step of one image takes in these tests, of each model.
PACE = 0.5
MODELS = ("sdxl", "sd3")


@pytest.fixture(autouse=True)
def measured(queue: JobQueue) -> None:
    """Jobs of both models have run before, and the models have been loaded, which took 30 seconds each."""
    for model in MODELS:
        queue.connection.hset(keys.IMAGE_PACE, job(model).pace_key, PACE)
        queue.connection.hset(keys.JOB_COSTS, f"load {model}", 30.0)


def job(model: str = "sdxl", steps: int = 100) -> Any:
    return parameters(model=model, num_inference_steps=steps, num_images=1, batchable=False)


def submit(
    queue: JobQueue, model: str = "sdxl", steps: int = 100, owner: str = "me", priority: Priority = Priority.NORMAL
) -> JobRecord:
    return queue.submit(job(model, steps), owner=owner, priority=priority)


def start_worker(queue: JobQueue, name: str = "first", max_jobs: int = 1, **state: Any) -> None:
    report_worker(queue, name, None, **{"warm": list(MODELS), "max_jobs": max_jobs, **state})


def position(queue: JobQueue, record: JobRecord) -> Position:
    found = queue.eta.position(record)
    assert found is not None
    return found


def expect(queue: JobQueue, record: JobRecord, ahead: int | None, seconds: float) -> None:
    found = position(queue, record)
    assert (found.ahead, found.reason) == (ahead, "")
    assert found.eta_seconds == pytest.approx(seconds, rel=0.01, abs=0.2)
    assert 0 < found.low_seconds < seconds < found.high_seconds


def test_a_short_job_behind_four_long_ones_waits_for_their_seconds(queue: JobQueue) -> None:
    start_worker(queue)
    for _ in range(4):
        submit(queue)

    expect(queue, submit(queue, steps=2), 4, 4 * 100 * PACE + 2 * PACE)


def test_a_short_job_goes_before_long_ones_where_a_worker_takes_several_at_a_time(queue: JobQueue) -> None:
    start_worker(queue, max_jobs=16)
    long = [submit(queue) for _ in range(4)]

    expect(queue, submit(queue, steps=2), 4, 2 * PACE)
    expect(queue, long[0], 0, 102 * PACE)


def test_a_low_job_behind_four_long_ones_gets_its_share_of_the_time(queue: JobQueue) -> None:
    start_worker(queue, max_jobs=16)
    for _ in range(4):
        submit(queue)

    # A tenth of the time, until its two steps are made.
    expect(queue, submit(queue, steps=2, priority=Priority.LOW), 4, 10 * 2 * PACE)


def test_a_low_job_behind_long_ones_of_a_worker_that_runs_one_at_a_time_waits_for_all(queue: JobQueue) -> None:
    start_worker(queue)
    for _ in range(2):
        submit(queue, steps=4)
    submit(queue, steps=6, priority=Priority.HIGH)

    expect(queue, submit(queue, steps=2, priority=Priority.LOW), 3, (4 + 4 + 6 + 2) * PACE)


def test_a_higher_tier_waits_for_no_lower_one(queue: JobQueue) -> None:
    start_worker(queue)
    for _ in range(3):
        submit(queue, priority=Priority.LOW)

    expect(queue, submit(queue, steps=2), 0, 2 * PACE)


def test_running_jobs_count_with_what_is_left_of_them(queue: JobQueue, make_claims: MakeClaims) -> None:
    start_worker(queue)
    running = submit(queue)
    take(make_claims())
    waiting = submit(queue, steps=2)

    expect(queue, waiting, 0, 100 * PACE + 2 * PACE)
    progress = Progress(step=75, steps=100, fraction=0.75)
    queue.connection.hset(keys.JOB + running.id, "progress", progress.model_dump_json())
    expect(queue, waiting, 0, 25 * PACE + 2 * PACE)
    expect(queue, running, None, 25 * PACE)


def test_two_workers_take_half_the_time(queue: JobQueue) -> None:
    for name in ("first", "second"):
        start_worker(queue, name)
    for _ in range(4):
        submit(queue)

    expect(queue, submit(queue, steps=2), 4, 2 * 100 * PACE + 2 * PACE)


def test_a_paused_worker_ends_what_it_has_begun_and_takes_no_more(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    start_worker(queue, "first", state="paused", reason="the storage is full")
    running = submit(queue)
    take(make_claims("first"))
    waiting = submit(queue, steps=2)

    expect(queue, running, None, 100 * PACE)
    assert position(queue, waiting) == Position(0, reason=NO_WORKER)
    start_worker(queue, "second")
    expect(queue, waiting, 0, 2 * PACE)


def test_a_job_of_a_worker_that_died_begins_again_when_its_lease_expires(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    lost = submit(queue, steps=4)
    take(make_claims("dead", lease_seconds=1000))
    start_worker(queue, "alive")

    expect(queue, lost, 0, 1000 + 4 * PACE)


def test_a_model_that_is_not_loaded_takes_its_time_to_load(queue: JobQueue) -> None:
    start_worker(queue, warm=["sdxl"])
    warm, cold = submit(queue, steps=2), submit(queue, "sd3", steps=2)

    expect(queue, warm, 0, 2 * PACE)
    expect(queue, cold, 1, 2 * PACE + 30 + 2 * PACE)


def test_two_models_that_do_not_fit_together_are_loaded_in_turn(queue: JobQueue) -> None:
    models = {model: {"planned_bytes": 6} for model in MODELS}
    start_worker(queue, warm=["sdxl"], models=models, budget_bytes=10)
    first = submit(queue, "sd3", steps=2)
    take_order = [first, submit(queue, steps=2)]

    # The job of the loaded model goes first; a later one of it waits until it has been loaded again.
    expect(queue, take_order[1], 0, 2 * PACE)
    expect(queue, take_order[0], 1, 30 + 4 * PACE)


def test_a_job_whose_deadline_is_near_goes_first(queue: JobQueue) -> None:
    start_worker(queue, max_jobs=16)
    short = submit(queue, steps=20)
    urgent = queue.submit(job(steps=40), owner="me", deadline_seconds=22)

    expect(queue, urgent, 1, 40 * PACE)
    expect(queue, short, 0, 60 * PACE)


@pytest.mark.parametrize(
    ("batchable", "joins_seeds", "are_joined"), [(True, False, True), (None, True, True), (None, False, False)]
)
def test_jobs_that_share_calls_end_sooner_than_one_after_another(
    queue: JobQueue, batchable: bool | None, joins_seeds: bool, are_joined: bool
) -> None:
    # A call takes 0.4 s and 0.1 s more for each image: measured alone, and in calls of four.
    sums: dict[str, float] = {"n": 0, "x": 0, "y": 0, "xx": 0, "xy": 0, "own": 0, "rows": 2}
    for images in (1, 4) * 5:
        x, y = 1 / images, 0.1 + 0.4 / images
        for name, value in {"n": 1, "x": x, "y": y, "xx": x * x, "xy": x * y}.items():
            sums[name] += value
    queue.connection.hset(keys.JOB_COSTS, f"calls {job().pace_key}", json.dumps(sums))
    start_worker(queue, max_jobs=16, joins_seeds=joins_seeds)
    named = parameters(model="sdxl", num_inference_steps=10, batchable=batchable)
    jobs = [queue.submit(named, owner="me") for _ in range(4)]

    found = [position(queue, record) for record in jobs]

    assert [one.ahead for one in found] == [0, 1, 2, 3]
    last = 10 * (0.4 + 4 * 0.1) if are_joined else 4 * 10 * (0.4 + 0.1)
    assert max(one.eta_seconds or 0.0 for one in found) == pytest.approx(last, rel=0.1)


def test_other_owners_are_served_as_many_seconds_not_as_many_jobs(queue: JobQueue) -> None:
    start_worker(queue)
    for _ in range(60):
        submit(queue, steps=2, owner="other")
    mine = [submit(queue, steps=100) for _ in range(2)]

    # 100 steps of mine are 50 jobs of the other, and the other's first came before.
    expect(queue, mine[1], 52, (100 + 51 * 2 + 100) * PACE)


def test_without_a_worker_a_job_has_a_position_and_no_time(queue: JobQueue) -> None:
    first, second = submit(queue), submit(queue)

    assert position(queue, first) == Position(0, reason=NO_WORKER)
    assert position(queue, second) == Position(1, reason=NO_WORKER)


def test_a_model_without_a_measured_job_is_estimated_from_others_and_the_range_is_wide(queue: JobQueue) -> None:
    start_worker(queue, warm=["new"])
    first = position(queue, submit(queue, "new", steps=10))
    queue.connection.hset(keys.JOB_COSTS, "all", json.dumps([50.0, 100.0]))  # of seconds and megapixel-steps

    second = position(queue, submit(queue, "new", steps=10))

    assert (first.eta_seconds, first.reason) == (
        None, UNMEASURED,
    )  # fmt: skip
    assert second.eta_seconds == pytest.approx(2 * 10 * 64 * 64 / 1e6 * 0.5, rel=0.01)
    assert second.high_seconds > 80 * second.low_seconds


def test_a_job_that_waits_for_a_download_begins_when_its_files_are_there(queue: JobQueue) -> None:
    start_worker(queue)
    waiting = submit(queue, steps=2)

    def prepare(**state: Any) -> None:
        news = Preparation(name="sdxl", state="fetching", **state)
        queue.connection.hset(keys.JOB + waiting.id, "preparing", news.model_dump_json())

    prepare(remaining_seconds=60.0)
    expect(queue, waiting, 0, 60 + 2 * PACE)
    prepare()
    assert "sdxl is being prepared" in position(queue, waiting).reason


def test_a_full_queue_takes_a_job_when_the_first_running_one_ends(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    start_worker(queue, max_jobs=2)
    for steps in (100, 20, 50):
        submit(queue, steps=steps)
    claims = make_claims()
    for _ in range(2):
        take(claims, ClaimCriteria())

    # It does not matter how long the refused job would take.
    assert queue.eta.seconds_to_next_claim() == 20 * PACE
    assert queue.eta.seconds_to_next_claim("somebody else") == 10  # has none that waits


def clone(queue: JobQueue, record: JobRecord, copies: int) -> None:
    """Have so many copies of a waiting job wait behind it, as fast as Redis can."""
    fields: Any = queue.connection.hgetall(keys.JOB + record.id)
    with queue.connection.pipeline(transaction=False) as pipe:
        for number in range(copies):
            pipe.hset(f"{keys.JOB}{record.id}{number}", mapping=fields)
            pipe.rpush(keys.RQ_QUEUE + record.queue, f"{record.id}{number}")
        for row in (str(record.priority), f"{record.priority} {record.owner}"):
            pipe.hincrby(keys.OWNER_LOAD, row, copies)
        pipe.execute()


def commands(queue: JobQueue) -> int:
    """Commands that Redis has run, those in scripts included."""
    stats = queue.connection.info("commandstats")
    return sum(row["calls"] for row in stats.values())


def test_ten_thousand_waiting_jobs_are_not_read_to_answer_one_client(queue: JobQueue) -> None:
    start_worker(queue)
    clone(queue, submit(queue, steps=2, owner="crowd"), 9_999)
    last, other = submit(queue, steps=2, owner="crowd"), submit(queue, steps=2, owner="other")
    low = submit(queue, steps=100, priority=Priority.LOW)
    before = commands(queue)

    # An owner's last job waits for all of its owner's; another owner's first one, for one of them.
    found = position(queue, last)
    assert found.ahead == pytest.approx(10_001, abs=2)
    assert found.eta_seconds == pytest.approx(10_001 * 2 * PACE, rel=0.01)
    expect(queue, other, 1, 2 * 2 * PACE)
    # A lower tier, until it has got its share.
    found = position(queue, low)
    assert found.ahead == pytest.approx(450, abs=2)
    assert found.eta_seconds == pytest.approx((450 + 50) * 2 * PACE, rel=0.05)
    assert commands(queue) - before < 2000


def test_a_new_job_of_a_long_queue_is_told_its_place_without_another_look(queue: JobQueue) -> None:
    start_worker(queue)
    for _ in range(40):
        submit(queue)
    last = submit(queue)
    later = position(queue, last)
    new = submit(queue)
    calls = queue.connection.info("commandstats")["cmdstat_evalsha"]["calls"]

    told = queue.eta.position(new, is_new=True)

    assert queue.connection.info("commandstats")["cmdstat_evalsha"]["calls"] == calls
    assert told is not None
    assert told.ahead == 41 == 1 + (later.ahead or 0)
    assert told == pytest.approx(position(queue, new), abs=1.0)


def test_a_new_job_of_a_short_queue_is_told_its_place_and_time_without_another_look(queue: JobQueue) -> None:
    start_worker(queue)
    submit(queue, owner="another")
    submit(queue)
    new = submit(queue)
    calls = queue.connection.info("commandstats")["cmdstat_evalsha"]["calls"]

    told = queue.eta.position(new, is_new=True)

    assert queue.connection.info("commandstats")["cmdstat_evalsha"]["calls"] == calls
    assert told == position(queue, new)
    assert told is not None
    assert told.ahead == 2
    assert told.eta_seconds == pytest.approx(3 * 100 * PACE, rel=0.01)


def test_a_place_that_was_told_is_looked_up_when_it_is_asked_for_later(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    start_worker(queue)
    for _ in range(40):
        submit(queue)
    position(queue, submit(queue))
    new = submit(queue, owner="another")
    claims = make_claims()
    while take(claims).job.id != new.id:
        pass

    assert queue.eta.position(new) is None  # it runs, and the forecast is older


def test_a_measured_pace_serves_again_for_as_long_as_the_caller_accepts(queue: JobQueue) -> None:
    before = queue.eta.run_seconds(job(), 60.0)
    queue.connection.hset(keys.IMAGE_PACE, job().pace_key, 2 * PACE)

    assert queue.eta.run_seconds(job(), 60.0) == before == 100 * PACE
    assert queue.eta.run_seconds(job()) == 2 * 100 * PACE


def test_jobs_that_come_after_a_forecast_keep_their_order(queue: JobQueue) -> None:
    start_worker(queue)
    submit(queue)
    snapshot = read_snapshot(queue.eta._scripts.run("queue_snapshot"))
    before, after = submit(queue), submit(queue)
    for new in (before, after):
        snapshot = snapshot.with_place(
            read_place(queue.eta._scripts.run("queue_place", id=new.id, queue=new.queue))
        )
        time.sleep(0.02)  # the second is looked at when it is older than the first one was

    found = simulate(snapshot)
    assert (found[before.id].ahead, found[after.id].ahead) == (1, 2)
