"""Totals: the counts of all processes add up in Redis exactly once, even if answers are lost."""

from __future__ import annotations

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from contracts.metrics import SUM, Counters, TotalsWriter, read_totals
from contracts.queue.client import JobQueue
from contracts.redis.connection import connect


def total(connection: Redis, name: str, *labels: str) -> dict[str, float]:
    (parts,) = [
        dict(sample.parts)
        for row, samples in read_totals(connection)
        for sample in samples
        if (row.name, sample.labels) == (name, labels)
    ]
    return parts


def test_counts_of_several_processes_add_up(queue: JobQueue) -> None:
    for seconds in (0.2, 0.3, 1000):
        counters = Counters()
        totals = TotalsWriter(queue.connection, counters)
        for _ in range(2):
            counters.observe("stage_seconds", seconds, stage="denoise", model="a/ü", task="txt2img")
            counters.count("warm_hits", model="a/ü")
            totals.flush()

    parts = total(queue.connection, "stage_seconds", "denoise", "a/ü", "txt2img")
    assert parts == {"0.25": 2, "0.5": 2, "+Inf": 2, SUM: pytest.approx(2001)}
    assert total(queue.connection, "warm_hits", "a/ü") == {"": 6}


def test_without_counts_nothing_is_written(queue: JobQueue) -> None:
    TotalsWriter(queue.connection, Counters()).flush()

    assert queue.connection.dbsize() == 0


def test_counts_made_while_redis_is_away_are_written_when_it_is_back(queue: JobQueue) -> None:
    counters = Counters()
    away = connect("redis://127.0.0.1:1/0", timeout_seconds=0.2, retries=0)
    totals = TotalsWriter(away, counters)
    counters.count("warm_hits", model="a")
    with pytest.raises(RedisConnectionError):
        totals.flush()
    counters.count("warm_hits", model="a")
    away.connection_pool = queue.connection.connection_pool

    totals.flush()
    totals.flush()

    assert total(queue.connection, "warm_hits", "a") == {"": 2}


def test_a_flush_whose_answer_was_lost_is_added_once(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters()
    totals = TotalsWriter(queue.connection, counters)
    counters.count("warm_hits", model="a")
    real_read = type(queue.connection).parse_response

    def lose_the_answer(self: Redis, connection: object, command: str, **options: object) -> object:
        real_read(self, connection, command, **options)  # type: ignore[no-untyped-call]
        raise RedisConnectionError("the answer was lost")

    totals.flush()  # from here on the server has the script
    counters.count("warm_hits", model="a")
    with monkeypatch.context() as patch:
        patch.setattr(type(queue.connection), "parse_response", lose_the_answer)
        with pytest.raises(RedisConnectionError):
            totals.flush()
    counters.count("warm_hits", model="a")

    totals.flush()
    totals.flush()

    assert total(queue.connection, "warm_hits", "a") == {"": 3}


def test_unknown_totals_are_skipped(queue: JobQueue) -> None:
    queue.connection.hset("darkroom:totals", '["of_another_release","","x"]', "1")
    queue.connection.hset("darkroom:totals", '["warm_hits","","a","b"]', "1")

    assert [samples for _, samples in read_totals(queue.connection) if samples] == []
