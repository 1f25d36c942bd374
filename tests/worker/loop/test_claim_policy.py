"""The claim policy: a loaded model runs for a minimum time before another may replace it."""

from __future__ import annotations

import time

from worker.loop.claim_policy import ClaimPolicy
from worker.settings import WorkerSettings


def test_a_model_is_not_replaced_before_its_minimum_time() -> None:
    policy = ClaimPolicy(0.1)
    assert policy.settled
    policy.enter("one")
    assert not policy.settled
    time.sleep(0.12)
    assert policy.settled


def test_running_the_same_model_again_does_not_restart_its_time() -> None:
    policy = ClaimPolicy(0.1)
    policy.enter("one")
    time.sleep(0.06)
    policy.enter("one")
    time.sleep(0.06)
    assert policy.settled
    policy.enter("two")
    assert not policy.settled


def test_the_criteria_follow_the_settings() -> None:
    settings = WorkerSettings(batching="250", max_batch_images=3)
    criteria = ClaimPolicy(0).criteria(["one"], settings)
    assert (criteria.warm, criteria.max_images, criteria.batching, criteria.batch_wait_seconds) == (
        ("one",),
        3,
        True,
        0.25,
    )
    assert not ClaimPolicy(0).criteria([], WorkerSettings(batching="off")).batching
