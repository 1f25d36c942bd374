"""The claim policy: a loaded model runs for a minimum time, and each tier has room beside those below it."""

from __future__ import annotations

from tests.support.waiting import wait_until
from worker.loop.claim_policy import ClaimPolicy

HIGH, NORMAL, LOW, TRAINING = range(4)
IMAGES = ("high", "normal", "low")


def test_a_model_is_not_replaced_before_its_minimum_time() -> None:
    policy = ClaimPolicy(1.0, max_jobs=1)
    assert policy.settled
    policy.enter("one")
    assert not policy.settled
    wait_until(lambda: policy.settled)


def test_running_the_same_model_again_does_not_restart_its_time() -> None:
    policy = ClaimPolicy(1.0, max_jobs=1)
    policy.enter("one")
    wait_until(lambda: policy.settled)
    policy.enter("one")
    assert policy.settled
    policy.enter("two")
    assert not policy.settled


def test_jobs_of_lower_tiers_leave_the_room_of_higher_ones() -> None:
    policy = ClaimPolicy(0, max_jobs=2)
    assert policy.room([]) == {**dict.fromkeys(IMAGES, 2), "training": 1}
    assert policy.room([LOW, LOW]) == {"high": 2, "normal": 2, "low": 0, "training": 1}
    assert policy.room([LOW, LOW, NORMAL]) == {"high": 2, "normal": 1, "low": 0, "training": 1}


def test_jobs_of_higher_tiers_take_the_room_of_lower_ones() -> None:
    policy = ClaimPolicy(0, max_jobs=2)
    assert policy.room([HIGH]) == dict.fromkeys((*IMAGES, "training"), 1)
    assert policy.room([HIGH, HIGH, HIGH]) == {**dict.fromkeys(IMAGES, 0), "training": 1}


def test_the_criteria_say_what_is_warm_and_how_much_room_there_is() -> None:
    criteria = ClaimPolicy(0, max_jobs=3).criteria(["one"], [NORMAL], ready=["one", "two"], deferred=["three"])
    assert (criteria.warm, criteria.ready, criteria.deferred) == (("one",), ["one", "two"], ["three"])
    assert (criteria.settled, criteria.in_flight) == (True, 1)
    assert criteria.room == {"high": 3, "normal": 2, "low": 2, "training": 1}


def test_a_worker_trains_one_at_a_time_beside_its_images_and_as_its_setting_says() -> None:
    assert ClaimPolicy(0, max_jobs=2).room([TRAINING]) == {**dict.fromkeys(IMAGES, 2), "training": 0}
    assert ClaimPolicy(0, 2, "never").room([])["training"] == 0
    assert ClaimPolicy(0, 2, "only").room([]) == {**dict.fromkeys(IMAGES, 0), "training": 1}
