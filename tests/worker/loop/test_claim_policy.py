"""The claim policy: a loaded model runs for a minimum time before another may replace it."""

from __future__ import annotations

import time

from worker.loop.claim_policy import ClaimPolicy


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
