"""Waiting for work: an announcement or `wake` ends a wait, and a lost connection is replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from contracts.leases.criteria import ClaimCriteria, NotReady
from contracts.queue.client import JobQueue
from contracts.queue.listener import WorkListener
from contracts.redis import keys
from tests.support.claims import MakeClaims, become_idle, let_leases_expire, take
from tests.support.parameters import parameters
from tests.support.waiting import wait_until

#: Duration of a wait that nothing ends.
PATIENCE_SECONDS = 120.0


@pytest.fixture
def listener(queue: JobQueue) -> Iterator[WorkListener]:
    """A listener for jobs that is subscribed and has no announcement pending."""
    listener = WorkListener(queue.connection, keys.WAKE_JOBS)
    listener.start()
    listener.wait(PATIENCE_SECONDS)  # the subscription itself ends a wait
    yield listener
    listener.close()


def seconds_of_wait(listener: WorkListener, seconds: float = PATIENCE_SECONDS) -> float:
    """How long a wait took."""
    started = time.monotonic()
    listener.wait(seconds)
    return time.monotonic() - started


def test_a_submitted_job_ends_the_wait(queue: JobQueue, listener: WorkListener) -> None:
    threading.Timer(0.2, queue.submit, [parameters()]).start()
    assert seconds_of_wait(listener) < PATIENCE_SECONDS / 2
    assert queue.connection.scard(keys.WAITING + "normal") == 1, "it ended before there was a job"


def test_a_job_submitted_before_the_wait_ends_it_too(queue: JobQueue, listener: WorkListener) -> None:
    queue.submit(parameters())
    assert seconds_of_wait(listener) < PATIENCE_SECONDS / 2


def test_a_released_job_and_a_reaped_job_end_the_wait(
    queue: JobQueue, listener: WorkListener, make_claims: MakeClaims
) -> None:
    queue.submit(parameters())
    claims = make_claims()
    listener.wait(PATIENCE_SECONDS)
    claim = take(claims)
    claims.release(claim)
    assert seconds_of_wait(listener) < PATIENCE_SECONDS / 2
    claims.claim(ClaimCriteria())
    let_leases_expire(queue)
    assert claims.reap() == (1, [])
    assert seconds_of_wait(listener) < PATIENCE_SECONDS / 2


def test_a_job_for_which_the_idle_worker_lacks_files_is_announced_to_the_busy_ones_that_left_it_once(
    queue: JobQueue, listener: WorkListener, make_claims: MakeClaims
) -> None:
    idle, busy = make_claims("idle"), make_claims("busy")
    become_idle(queue, idle)
    job = queue.submit(parameters())
    assert busy.claim(ClaimCriteria(in_flight=1)) is None
    listener.wait(PATIENCE_SECONDS)
    for _ in range(2):
        with pytest.raises(NotReady):
            idle.claim(ClaimCriteria(ready=[]))
    assert seconds_of_wait(listener) < PATIENCE_SECONDS / 2
    assert take(busy, ClaimCriteria(in_flight=1)).job.id == job.id
    assert seconds_of_wait(listener, 0.3) >= 0.3


def test_progress_and_the_end_of_a_job_do_not_end_the_wait(
    queue: JobQueue, listener: WorkListener, make_claims: MakeClaims
) -> None:
    job = queue.submit(parameters())
    listener.wait(PATIENCE_SECONDS)
    make_claims().claim(ClaimCriteria())
    queue.cancel(job.id)
    assert seconds_of_wait(listener, 0.3) >= 0.3


def test_wake_ends_the_wait(listener: WorkListener) -> None:
    threading.Timer(0.1, listener.wake).start()
    assert seconds_of_wait(listener) < PATIENCE_SECONDS / 2


def test_a_lost_connection_is_replaced(queue: JobQueue, listener: WorkListener) -> None:
    killed = queue.connection.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
    assert killed == 1
    # The new subscription ends a wait, because announcements before it were missed.
    assert seconds_of_wait(listener) < PATIENCE_SECONDS / 2
    wait_until(lambda: queue.connection.pubsub_numsub(keys.WAKE_JOBS)[0][1] == 1)
    queue.submit(parameters())
    assert seconds_of_wait(listener) < PATIENCE_SECONDS / 2


def test_close_ends_the_thread_at_once(queue: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    listener = WorkListener(queue.connection, keys.WAKE_JOBS)
    listener.start()
    listener.wait(PATIENCE_SECONDS)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "listener"]
    listener.close()
    assert not thread.is_alive()
    queue.connection.connection_pool.disconnect()
    assert caplog.records == []
