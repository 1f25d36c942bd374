"""Counters: they accept the rows of the table, from any thread, and are drained once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.metrics import ROWS, SUM, Counters


def values(counters: Counters) -> dict[tuple[str, ...], float]:
    return {tuple(json.loads(key)): value for key, value in counters.drain().items()}


def test_counts_are_drained_once() -> None:
    counters = Counters()
    counters.count("warm_hits", model="a")
    counters.count("warm_hits", 2, model="a")
    counters.count("evictions", to="host", model="a")

    assert values(counters) == {("warm_hits", "", "a"): 3, ("evictions", "", "a", "host"): 1}
    assert counters.drain() == {}


@pytest.mark.parametrize(("value", "bucket"), [(0, "1"), (1, "1"), (1.5, "2"), (64, "64"), (65, "+Inf")])
def test_an_observation_falls_into_the_bucket_whose_bound_it_does_not_exceed(value: float, bucket: str) -> None:
    counters = Counters()
    counters.observe("call_rows", value, model="a")

    assert values(counters) == {("call_rows", bucket, "a"): 1, ("call_rows", SUM, "a"): value}


def test_counts_from_many_threads_add_up() -> None:
    counters = Counters()

    def count(_: int) -> None:
        for _ in range(1000):
            counters.count("warm_hits", model="a")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, range(8)))

    assert values(counters) == {("warm_hits", "", "a"): 8000}


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("warm_hats", {"model": "a"}),
        ("call_rows", {"model": "a"}),
        ("warm_hits", {}),
        ("warm_hits", {"model": "a", "task": "txt2img"}),
    ],
)
def test_an_unknown_counter_or_label_is_an_error(name: str, labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=name):
        Counters().count(name, **labels)


def test_a_counter_cannot_observe_values() -> None:
    with pytest.raises(ValueError, match="histogram"):
        Counters().observe("warm_hits", 1.0, model="a")


def test_histograms_have_rising_bounds_and_counters_have_none() -> None:
    for row in ROWS.values():
        assert sorted(set(row.bounds)) == list(row.bounds)
        assert bool(row.bounds) == (row.kind == "histogram")
