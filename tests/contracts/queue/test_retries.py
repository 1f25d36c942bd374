"""Calls that a client's library sends again: which jobs they find."""

from __future__ import annotations

import threading

import pytest

from contracts.queue.client import JobQueue
from contracts.queue.retries import RepeatableCall, Retries

CALL = RepeatableCall("me:key", "f" * 64, is_retry=True)


@pytest.fixture
def retries(queue: JobQueue) -> Retries:
    return Retries(queue.connection)


def test_the_jobs_of_a_call_are_found_the_latest_first_until_their_ends_are_delivered(retries: Retries) -> None:
    for id in ("b", "a"):
        with retries.accepting(CALL) as made:
            made(id)

    assert retries.made_by(CALL) == ["a", "b"]
    retries.forget(CALL, "a")
    assert retries.made_by(CALL) == ["b"]


def test_a_retry_waits_for_a_call_that_is_being_accepted(retries: Retries) -> None:
    found: list[str] = []
    with retries.accepting(CALL) as made:
        retry = threading.Thread(target=lambda: found.extend(retries.made_by(CALL)))
        retry.start()
        made("a")
    retry.join(60)

    assert found == ["a"]


def test_a_call_that_was_refused_leaves_nothing_to_wait_for(retries: Retries) -> None:
    with pytest.raises(ValueError, match="refused"), retries.accepting(CALL):
        raise ValueError("refused")

    assert retries.made_by(CALL) == []


@pytest.mark.parametrize(
    "other", [RepeatableCall("you:key", "f" * 64, True), RepeatableCall("me:key", "0" * 64, True)]
)
def test_other_callers_and_other_bodies_find_nothing(retries: Retries, other: RepeatableCall) -> None:
    with retries.accepting(CALL) as made:
        made("a")

    assert retries.made_by(other) == []
