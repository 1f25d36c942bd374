"""Attended jobs: who is cancelled when, also where no process looked for a while."""

from __future__ import annotations

import pytest

from contracts.jobs.records import JobState
from contracts.queue.attendance import AttendedJobs
from contracts.queue.client import JobQueue
from contracts.redis import keys
from tests.support.parameters import parameters


@pytest.fixture
def attended(queue: JobQueue) -> AttendedJobs:
    return AttendedJobs(queue.connection, 3600)


def test_a_job_whose_time_has_passed_is_cancelled_once_and_others_are_not(
    queue: JobQueue, attended: AttendedJobs
) -> None:
    deserted, waited_for, free = (queue.submit(parameters()).id for _ in range(3))
    attended.extend([deserted], -0.5)
    attended.extend([waited_for], 60)

    assert [attended.cancel_deserted(10) for _ in range(2)] == [[deserted], []]
    states = [queue.fetch(id).state for id in (deserted, waited_for, free)]
    assert states == [JobState.CANCELLED, JobState.QUEUED, JobState.QUEUED]


def test_a_job_whose_time_passed_while_nobody_looked_gets_a_new_time(
    queue: JobQueue, attended: AttendedJobs
) -> None:
    id = queue.submit(parameters()).id
    attended.extend([id], -60)

    assert attended.cancel_deserted(60) == []
    assert attended.cancel_deserted(60) == []
    assert queue.fetch(id).state is JobState.QUEUED
    assert float(str(queue.connection.zscore(keys.ATTENDED, id))) > queue.now()


def test_a_job_that_has_ended_or_is_released_is_not_attended(queue: JobQueue, attended: AttendedJobs) -> None:
    ended, released = (queue.submit(parameters()).id for _ in range(2))
    attended.extend([ended, released, "unknown"], 60)
    queue.cancel(ended)
    attended.release(released)
    attended.extend([ended], 60)

    assert queue.connection.zrange(keys.ATTENDED, 0, -1) == []
