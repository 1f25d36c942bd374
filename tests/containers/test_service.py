"""The composed service at work: every task, every worker, and nothing lost whatever is killed under load."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from tests.containers.stack import Stack, compose, run
from tests.support.images import draw_shape, left_half_mask, to_base64, to_data_url
from tests.support.running_service import Json

#: Slow enough to be caught at work on any machine: a job takes a second or more.
LONG = {"num_inference_steps": 60}


def assert_all_done(jobs: Sequence[Json]) -> None:
    assert [job["status"] for job in jobs] == ["completed"] * len(jobs), jobs
    assert all(len(job["images"]) == 1 for job in jobs)


@pytest.mark.parametrize("task", ["txt2img", "img2img", "inpaint", "controlnet"])
def test_each_task_makes_a_round_trip_through_the_published_port(stack: Stack, task: str) -> None:
    image = to_data_url(draw_shape())
    bodies: dict[str, Json] = {
        "txt2img": {},
        "img2img": {"image": image},
        "inpaint": {"image": image, "mask_image": to_base64(left_half_mask())},
        "controlnet": {"controls": [{"controlnet": "shapes-sdxl-silhouette", "image": image}]},
    }
    assert stack.generate(task, **bodies[task]).size == (64, 64)


def test_jobs_are_spread_over_the_workers(stack: Stack) -> None:
    jobs = stack.wait_for_all(stack.submit_many(12))
    assert_all_done(jobs)
    assert len({job["receipt"]["worker"] for job in jobs}) == 2


def test_a_worker_killed_in_the_middle_of_a_batch_costs_no_job(stack: Stack) -> None:
    ids = stack.submit_many(10, **LONG)
    stack.wait_until(lambda: any(row["state"] == "busy" for row in stack.live_workers()), "a busy worker")
    stack.kill_processes(stack.containers("worker")[0])
    jobs = stack.wait_for_all(ids)
    assert_all_done(jobs)
    assert max(job["attempts"] for job in jobs) >= 1


def test_redis_killed_and_back_loses_nothing_that_was_accepted(stack: Stack) -> None:
    ids = stack.submit_many(10, **LONG)
    # The append-only file is synced every second: what came in the last one may go with the process, not more.
    time.sleep(1.5)
    redis = stack.containers("redis")[0]
    before = stack.inspect(redis)["RestartCount"]
    stack.kill_processes(redis)
    stack.wait_until(lambda: stack.inspect(redis)["RestartCount"] > before, "a restarted Redis")
    assert_all_done(stack.wait_for_all(ids))


def test_scaling_up_and_down_under_load_loses_nothing(stack: Stack) -> None:
    ids = stack.submit_many(20, **LONG)
    for workers in (4, 1):
        compose("up", "--detach", "--no-build", "--no-recreate", "--scale", f"worker={workers}")
        ids += stack.submit_many(5, **LONG)
    stack.wait_until(lambda: len(stack.containers("worker")) == 1, "one worker left")
    assert_all_done(stack.wait_for_all(ids, timeout_seconds=400))


def test_a_worker_that_was_cut_off_comes_back(stack: Stack) -> None:
    container = stack.containers("worker")[0]
    stack.disconnect(container)
    try:
        jobs = stack.wait_for_all(stack.submit_many(6))
        assert_all_done(jobs)
        stack.wait_until(lambda: len(stack.live_workers()) == 1, "the other worker alone")
    finally:
        stack.reconnect(container)
    stack.wait_until(lambda: len(stack.live_workers()) == 2, "both workers")
    jobs = stack.wait_for_all(stack.submit_many(16, **LONG))
    assert_all_done(jobs)
    assert len({job["receipt"]["worker"] for job in jobs}) == 2


def test_the_api_restarted_under_load_loses_nothing(stack: Stack) -> None:
    ids = stack.submit_many(8, **LONG)
    run("docker", "restart", "--time", "20", stack.containers("api")[0])
    ids += stack.submit_many(4)
    assert_all_done(stack.wait_for_all(ids))
