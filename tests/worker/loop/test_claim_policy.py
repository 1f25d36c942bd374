"""The minimum residency of the model that ran last."""

from __future__ import annotations

import time

from worker.loop.claim_policy import ClaimPolicy
from worker.settings import WorkerSettings


def test_a_model_that_has_just_come_in_may_not_be_displaced() -> None:
    residency = ClaimPolicy(0.1)
    assert residency.settled
    residency.enter("one")
    assert not residency.settled
    time.sleep(0.12)
    assert residency.settled


def test_running_the_same_model_again_does_not_begin_its_time_anew() -> None:
    residency = ClaimPolicy(0.1)
    residency.enter("one")
    time.sleep(0.06)
    residency.enter("one")
    time.sleep(0.06)
    assert residency.settled
    residency.enter("two")
    assert not residency.settled


def test_the_wish_says_what_the_settings_say() -> None:
    settings = WorkerSettings(batching="250", max_batch_images=3)
    wish = ClaimPolicy(0).criteria(["one"], settings)
    assert (wish.warm, wish.max_images, wish.batching, wish.batch_wait_seconds) == (("one",), 3, True, 0.25)
    assert not ClaimPolicy(0).criteria([], WorkerSettings(batching="off")).batching
