"""A process's name among RQ's workers: one live process has it, and a dead one does not keep it."""

from __future__ import annotations

import time

import pytest
from redis import Redis
from rq import Worker
from rq.worker import WorkerStatus

from contracts.errors import SettingsError
from contracts.processes.rq_registration import RqRegistration
from tests.support.forked_text import running
from tests.support.waiting import wait_until

TTL_SECONDS = 2
KEY = "rq:worker:a-worker"
#: Registers and never leaves.
PROGRAM = """
import sys, time
from contracts.processes.rq_registration import RqRegistration
from contracts.redis.connection import connect
connection = connect(sys.argv[1], timeout_seconds=5, retries=1, decode=False)
with RqRegistration(connection, "a-worker", int(sys.argv[2])):
    print("registered", flush=True)
    time.sleep(600)
"""


def test_the_name_of_a_killed_process_is_taken_over(redis_url: str, rq_connection: Redis) -> None:
    with running(PROGRAM, redis_url, str(TTL_SECONDS)) as (process, shown):
        assert shown.readline() == "registered\n"
        process.kill()
    assert rq_connection.exists(KEY)

    with RqRegistration(rq_connection, "a-worker", TTL_SECONDS):
        (worker,) = Worker.all(connection=rq_connection)
        assert worker.pid != process.pid


def test_the_name_of_a_live_process_is_refused_and_its_entry_untouched(rq_connection: Redis) -> None:
    with RqRegistration(rq_connection, "a-worker", TTL_SECONDS):
        birth = rq_connection.hget(KEY, "birth")
        second = RqRegistration(rq_connection, "a-worker", TTL_SECONDS)
        with pytest.raises(SettingsError, match="'a-worker' belongs to another process that is running"):
            second.__enter__()
        assert rq_connection.hget(KEY, "birth") == birth


def test_an_entry_outlives_a_long_job_and_returns_after_redis_was_away(rq_connection: Redis) -> None:
    with RqRegistration(rq_connection, "a-worker", TTL_SECONDS) as registration:
        time.sleep(TTL_SECONDS + 0.5)
        assert [worker.name for worker in Worker.all(connection=rq_connection)] == ["a-worker"]
        rq_connection.delete(KEY)
        registration.show(WorkerStatus.BUSY)  # leaves a part of an entry, which never expires
        wait_until(lambda: rq_connection.ttl(KEY) > 0)
        wait_until(lambda: Worker.all(connection=rq_connection)[0].get_state() == WorkerStatus.BUSY)
