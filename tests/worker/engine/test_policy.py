"""Which calls are served next, and which of them together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from worker.engine.costs import CallCosts
from worker.engine.policy import FifoPolicy, StepPolicy, Waiting

KIND = ("model", "denoiser", (4, 8, 8))


def call(job_id: str, remaining_seconds: float, **changes: object) -> Waiting:
    usual = Waiting(
        job_id=job_id,
        tier=1,
        owner="owner",
        remaining_seconds=remaining_seconds,
        age_seconds=0.0,
        deadline_in_seconds=None,
        key=None,
        additions=None,
        kind=KIND,
        rows=1,
        images=1,
        max_images=8,
        turn="model",
        last_served=1,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def costs(slope: float) -> CallCosts:
    """A call of one row takes a tenth of a second."""
    learned = CallCosts()
    for rows in (1, 2, 4, 8) * 3:
        learned.learn(KIND, rows, 0.1 * (1 + slope * (rows - 1)))
    return learned


def chosen(
    waiting: Sequence[Waiting],
    policy: StepPolicy | FifoPolicy | None = None,
    slope: float = 0.5,
    max_rows: int = 8,
    buckets: Sequence[int] | None = None,
) -> list[str]:
    group = (policy or StepPolicy()).choose(waiting, costs(slope), max_rows, buckets)
    return [member.job_id for member in group]


def serve(policy: StepPolicy, waiting: Sequence[Waiting], times: int, seconds: float = 0.1) -> list[str]:
    """The jobs whose calls come first, one after another, while the same calls wait."""
    served = []
    for _ in range(times):
        group = policy.choose(waiting, costs(1.0), 8)
        policy.served(group, seconds)
        served.append(group[0].job_id)
    return served


FIRST = {
    "shortest_remaining": [call("short", 1.0), call("long", 5.0, age_seconds=3.0)],
    "a_higher_tier_before_a_shorter_job": [call("high", 50.0, tier=0), call("short", 0.1)],
    "of_equals_the_oldest": [call("old", 2.0, age_seconds=9.0), call("new", 2.0)],
    "a_long_job_that_has_waited_many_times_its_length": [
        call("long", 5.0, age_seconds=400.0),
        call("short", 1.0),
    ],
    "a_deadline_that_is_about_to_be_missed": [call("dated", 5.0, deadline_in_seconds=6.0), call("short", 1.0)],
    "the_earlier_of_two_such_deadlines": [
        call("earlier", 3.0, deadline_in_seconds=4.0),
        call("later", 1.0, deadline_in_seconds=4.4),
    ],
    "shortest_where_a_deadline_is_far": [call("short", 1.0), call("dated", 5.0, deadline_in_seconds=60.0)],
    "shortest_where_a_deadline_is_lost": [call("short", 1.0), call("lost", 5.0, deadline_in_seconds=2.0)],
    "a_tier_before_a_deadline": [call("high", 9.0, tier=0), call("dated", 5.0, deadline_in_seconds=6.0)],
}


@pytest.mark.parametrize("waiting", FIRST.values(), ids=FIRST)
def test_the_first_call_is(waiting: list[Waiting]) -> None:
    assert [chosen(waiting)[0], chosen(waiting[::-1])[0]] == [waiting[0].job_id] * 2


def test_of_two_deadlines_of_which_one_can_be_met_only_one_is_served_first() -> None:
    waiting = [
        call("kept", 5.0, deadline_in_seconds=6.0),
        call("lost", 5.0, deadline_in_seconds=6.5),
        call("short", 1.0),
    ]
    assert chosen(waiting)[0] == "kept"
    assert chosen(waiting[1:])[0] == "lost"


def test_a_load_and_calls_that_are_as_urgent_take_turns_whatever_is_left_of_them() -> None:
    load = call("load", 50.0, is_loading=True)
    calls = [load, call("short", 1.0), call("long", 90.0)]
    assert serve(StepPolicy(), calls, 5) == ["load", "short", "load", "short", "load"]
    assert serve(StepPolicy(), [load, calls[2]], 4) == ["load", "long"] * 2
    assert serve(StepPolicy(), [load], 2) == ["load", "load"]


@pytest.mark.parametrize("urgent", [{"tier": 0}, {"deadline_in_seconds": 5.1}], ids=["tier", "deadline"])
def test_the_more_urgent_of_a_load_and_a_call_goes_first(urgent: dict[str, Any]) -> None:
    policies = StepPolicy(lower_tier_share=0.0), StepPolicy(lower_tier_share=0.0)
    assert serve(policies[0], [call("load", 5.0, is_loading=True), call("job", 5.0, **urgent)], 3) == ["job"] * 3
    assert serve(policies[1], [call("load", 5.0, is_loading=True, **urgent), call("job", 5.0)], 3) == ["load"] * 3


def test_nothing_waits_nothing_is_chosen() -> None:
    assert StepPolicy().choose([], CallCosts(), 8) == []
    assert FifoPolicy().choose([], CallCosts(), 8) == []


def equals(count: int, **changes: object) -> list[Waiting]:
    return [call(f"job {number}", 3.0 + number / 100, key="key", **changes) for number in range(count)]


def test_calls_with_equal_keys_share_a_call_where_rows_cost_little() -> None:
    assert chosen(equals(4), slope=0.1) == ["job 0", "job 1", "job 2", "job 3"]


def test_calls_are_made_alone_where_a_row_costs_a_call() -> None:
    assert chosen(equals(4), slope=0.99) == ["job 0"]


def test_calls_without_a_key_or_with_other_keys_are_made_alone() -> None:
    waiting = [
        call("first", 1.0, key="a"),
        call("other", 2.0, key="b"),
        call("exact", 3.0),
        call("exact too", 4.0),
    ]
    assert chosen(waiting, slope=0.0) == ["first"]
    assert chosen(waiting[2:], slope=0.0) == ["exact"]


def test_a_short_job_is_not_delayed_for_a_long_one_unless_rows_cost_little() -> None:
    waiting = [call(f"short {number}", 0.5 + number / 100, key=None) for number in range(4)]
    waiting = [*waiting, call("first", 0.1, key="key"), call("long", 50.0, key="key")]
    assert chosen(waiting, slope=0.6) == ["first"]
    assert chosen(waiting, slope=0.05) == ["first", "long"]


LIMITS = {
    "rows": ({"rows": 2}, {"max_rows": 5}, 2),
    "images": ({"max_images": 3}, {}, 3),
    "a_bucket": ({"rows": 1}, {"buckets": (1, 2, 4)}, 4),
    "a_bucket_of_larger_calls": ({"rows": 2}, {"buckets": (1, 2, 4, 8), "max_rows": 7}, 2),
    "no_bucket": ({"rows": 3}, {"buckets": (1, 2, 4)}, 1),
}


@pytest.mark.parametrize(("changes", "limits", "together"), LIMITS.values(), ids=LIMITS)
def test_a_shared_call_is_limited_by(changes: dict[str, int], limits: dict[str, Any], together: int) -> None:
    assert len(chosen(equals(6, **changes), slope=0.0, **limits)) == together


def test_a_job_with_a_smaller_limit_of_images_limits_the_calls_that_it_shares() -> None:
    waiting = [call("first", 1.0, key="key"), call("small plan", 2.0, key="key", max_images=2), *equals(4)]
    assert chosen(waiting, slope=0.0) == ["first", "small plan"]


def test_rows_that_no_bucket_has_are_left_out_for_others_that_fit() -> None:
    waiting = [call(name, 1.0 + rows / 100, key="key", rows=rows) for name, rows in (("a", 1), ("b", 2), ("c", 3))]
    assert chosen(waiting, slope=0.0, buckets=(1, 4)) == ["a", "c"]


def test_calls_share_only_where_their_additions_are_equal_or_one_has_none() -> None:
    waiting = [
        call("plain", 1.0, key="key"),
        call("canny", 2.0, key="key", additions="two nets"),
        call("depth", 3.0, key="key", additions="one net"),
        call("canny too", 4.0, key="key", additions="two nets"),
    ]
    assert chosen(waiting, slope=0.0) == ["plain", "canny", "canny too"]


def test_lower_tiers_share_a_call_only_where_they_hardly_delay_it() -> None:
    waiting = [call("high", 1.0, key="key", tier=0), *equals(6)]
    assert chosen(waiting, slope=0.3) == ["high"]
    assert chosen(waiting, slope=0.04) == ["high", "job 0", "job 1"]


def test_a_deadline_at_risk_is_not_delayed_by_calls_that_share_it() -> None:
    waiting = [call("dated", 2.0, key="key", deadline_in_seconds=2.5), *equals(3)]
    assert chosen(waiting, slope=0.3) == ["dated"]


def test_a_job_is_encoded_first_where_it_can_then_share_the_calls_of_shorter_ones() -> None:
    waiting = [call("first", 1.0, key="key"), call("to encode", 5.0, opens="model", kind=("model", "encode"))]
    learned = costs(0.1)
    for _ in range(3):
        learned.learn(("model", "encode"), 1, 0.02)
    assert [one.job_id for one in StepPolicy().choose(waiting, learned, 8)] == ["to encode"]
    assert [one.job_id for one in StepPolicy().choose(waiting, learned, 1)] == ["first"]
    for _ in range(7):
        learned.learn(("model", "encode"), 1, 2.0)
    assert [one.job_id for one in StepPolicy().choose(waiting, learned, 8)] == ["first"]


def test_a_lower_tier_gets_a_small_share_while_a_higher_one_always_has_calls() -> None:
    waiting = [call("high", 5.0, tier=0), call("normal", 5.0), call("low", 5.0, tier=2)]
    served = serve(StepPolicy(lower_tier_share=0.1), waiting, 200)
    assert served.count("high") > 150
    assert 10 < served.count("normal") < 30
    assert 10 < served.count("low") < 30


def test_the_first_step_of_a_higher_tier_does_not_wait_for_what_a_lower_one_is_owed() -> None:
    policy = StepPolicy(lower_tier_share=0.5)
    begun, low = call("begun", 5.0, tier=0), call("low", 5.0, tier=2)
    assert serve(policy, [begun, low], 1) == ["begun"]
    assert chosen([call("new", 5.0, tier=0, last_served=0), low], policy) == ["new"]
    assert chosen([begun, low], policy) == ["low"]


def test_an_owners_stream_of_short_jobs_does_not_keep_anothers_long_job_waiting_for_ever() -> None:
    stream, long = call("short", 0.4, owner="a"), call("long", 5.0, owner="b")
    served = serve(StepPolicy(), [stream, long], 1000)
    assert served[0] == "short"
    assert 350 < served.count("long") < 650


def test_a_new_owner_is_served_before_one_who_was_served_more_but_not_for_more_than_that() -> None:
    policy = StepPolicy()
    serve(policy, [call("a", 5.0, owner="a"), call("b", 5.0, owner="b")], 200)
    served = serve(policy, [call(name, 5.0, owner=name) for name in ("a", "b", "c")], 300)
    assert all(90 < served.count(name) < 110 for name in ("a", "b", "c"))


def test_deadlines_do_not_let_an_owner_have_more_than_others() -> None:
    dated = call("dated", 1.0, owner="a", deadline_in_seconds=1.2)
    served = serve(StepPolicy(), [dated, call("other", 1.0, owner="b")], 400)
    assert served.count("other") > 150


def move(turn: Hashable) -> float:
    return 0.5


A, B = call("a", 5.0, turn="A"), call("b", 5.0, turn="B")


def test_a_turn_is_kept_until_it_was_worth_its_move() -> None:
    policy = StepPolicy(move)
    assert serve(policy, [A], 1) == ["a"]
    short = call("short", 0.5, turn="B")
    served = serve(policy, [A, short], 30)
    assert served.index("short") == 19  # with the first one, two seconds: four times the move


def test_a_turn_changes_freely_where_moving_costs_nothing() -> None:
    policy = StepPolicy()
    assert serve(policy, [A], 1) == ["a"]
    assert serve(policy, [A, call("short", 4.9, turn="B")], 1) == ["short"]


def test_a_turn_is_not_left_for_a_job_that_is_hardly_shorter_than_the_moves() -> None:
    policy = StepPolicy(move)
    serve(policy, [A], 30)
    assert serve(policy, [A, call("b", 4.5, turn="B")], 1) == ["a"]


@pytest.mark.parametrize(
    "urgent",
    [call("urgent", 9.0, tier=0, turn="B"), call("urgent", 2.0, deadline_in_seconds=3.0, turn="B")],
    ids=["of_a_higher_tier", "with_a_deadline_at_risk"],
)
def test_an_urgent_call_changes_the_turn_at_once(urgent: Waiting) -> None:
    policy = StepPolicy(move)
    assert serve(policy, [A], 1) == ["a"]
    assert serve(policy, [A, urgent], 1) == ["urgent"]


@pytest.mark.parametrize("move_seconds", [0.0, 0.5])
def test_no_model_waits_for_the_whole_of_another_models_job(move_seconds: float) -> None:
    policy = StepPolicy(lambda _: move_seconds)
    served = serve(policy, [replace(A, remaining_seconds=4.0), B], 400)
    assert 60 < served.count("b") < 200
    changes = sum(first != second for first, second in pairwise(served))
    assert changes <= 40


def test_fifo_serves_the_oldest_job_alone_and_to_its_end() -> None:
    policy = FifoPolicy()
    old = call("old", 9.0, key="key", age_seconds=5.0, last_served=0)
    new = call("new", 1.0, key="key", age_seconds=1.0, last_served=0)
    assert chosen([new, old], policy, slope=0.0) == ["old"]
    assert chosen([replace(new, last_served=3), old], policy) == ["new"]
    assert chosen([replace(new, tier=0), old], policy) == ["new"]
