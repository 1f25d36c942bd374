"""What a call takes, learned from measured ones."""

from __future__ import annotations

import pytest

from worker.engine import costs as module
from worker.engine.costs import UNMEASURED_SECONDS, UNMEASURED_SLOPE, CallCosts

KIND = ("sdxl", "denoiser", (4, 128, 128))


def measured(**calls: float) -> CallCosts:
    """`rows_4=2.0`: calls of 4 rows take 2 seconds."""
    costs = CallCosts()
    for name, seconds in calls.items():
        for _ in range(3):
            costs.learn(KIND, int(name.removeprefix("rows_")), seconds)
    return costs


def test_a_measured_size_costs_what_was_measured() -> None:
    assert measured(rows_1=1.0, rows_4=2.0).seconds(KIND, 4) == 2.0


def test_between_two_sizes_and_beyond_them_costs_lie_on_a_line() -> None:
    costs = measured(rows_2=1.0, rows_4=2.0)
    assert [costs.seconds(KIND, rows) for rows in (1, 3, 8)] == pytest.approx([0.5, 1.5, 4.0])
    assert costs.slope(KIND) == pytest.approx(1.0)


@pytest.mark.parametrize("slope", [0.0, 0.35, 0.98])
def test_the_slope_is_the_cost_of_a_row_relative_to_a_call_of_one(slope: float) -> None:
    rows = {f"rows_{rows}": 3 * (1 + slope * (rows - 1)) for rows in (2, 4, 6)}
    assert measured(**rows).slope(KIND) == pytest.approx(slope)


def test_until_two_sizes_are_measured_the_slope_is_assumed_low_so_that_joining_is_tried() -> None:
    assert CallCosts().slope(KIND) == UNMEASURED_SLOPE == measured(rows_2=1.0).slope(KIND)
    assert measured(rows_2=1.5).seconds(KIND, 4) == pytest.approx(2.5)


def test_a_first_call_that_compiles_is_not_believed() -> None:
    costs = measured(rows_1=1.0)
    costs.learn(KIND, 4, 60.0)
    assert costs.seconds(KIND, 4) < 5
    costs.learn(KIND, 4, 2.0)
    costs.learn(KIND, 4, 2.0)
    assert costs.seconds(KIND, 4) == 2.0


def test_a_disturbed_call_changes_nothing_and_a_lasting_change_is_followed() -> None:
    costs = measured(rows_1=1.0)
    costs.learn(KIND, 1, 30.0)
    assert costs.seconds(KIND, 1) == 1.0
    for _ in range(7):
        costs.learn(KIND, 1, 0.5)
    assert costs.seconds(KIND, 1) == 0.5


def test_on_a_machine_that_is_busy_with_other_things_the_quick_calls_count() -> None:
    costs = CallCosts()
    for disturbance in (1.0, 5.0, 1.0, 4.0, 6.0, 2.0, 3.0):
        costs.learn(KIND, 1, 1.0 * disturbance)
        costs.learn(KIND, 2, 1.5 * disturbance)
    assert costs.slope(KIND) == pytest.approx(0.5)


def test_a_size_that_was_not_called_for_long_is_tried_again() -> None:
    costs = measured(rows_1=1.0, rows_2=2.0)
    assert costs.slope(KIND) == pytest.approx(1.0)
    for _ in range(600):
        costs.learn(KIND, 1, 1.0)
    assert costs.slope(KIND) == UNMEASURED_SLOPE


def test_a_size_that_may_be_right_is_kept_for_longer_than_one_that_cannot() -> None:
    costs = measured(rows_1=1.0, rows_2=1.9)
    for _ in range(300):
        costs.learn(KIND, 1, 1.0)
    assert costs.seconds(KIND, 2) == pytest.approx(1.9)


def test_sizes_measured_while_the_machine_was_slow_do_not_keep_jobs_apart() -> None:
    costs = measured(rows_1=1.0, rows_2=15.0, rows_3=18.0)
    sizes = []
    for _ in range(100):
        is_shared = costs.seconds(KIND, 2) < 2 * costs.seconds(KIND, 1)
        sizes.append(2 if is_shared else 1)
        costs.learn(KIND, sizes[-1], 1.3 if is_shared else 1.0)
    assert sizes[0] == 1
    assert sizes[-20:] == [2] * 20


def test_noise_gives_neither_free_calls_nor_rows_that_save_time() -> None:
    falling = measured(rows_1=2.0, rows_2=1.0)
    assert falling.slope(KIND) == 0.0
    assert falling.seconds(KIND, 8) > 0
    steep = measured(rows_4=1.0, rows_5=9.0)
    assert steep.seconds(KIND, 1) > 0
    assert 1 < steep.slope(KIND) < 10


def test_an_unknown_kind_costs_what_kinds_like_it_do() -> None:
    costs = CallCosts()
    assert costs.seconds(KIND, 1) == UNMEASURED_SECONDS
    for _ in range(3):
        costs.learn(("flux", "denoiser", (1024, 64)), 1, 5.0)
    assert costs.seconds(KIND, 1) == 5.0
    for _ in range(3):
        costs.learn(("sdxl", "denoiser", (4, 64, 64)), 1, 0.25)
    assert costs.seconds(KIND, 1) == 0.25


def test_calls_without_rows_or_time_teach_nothing() -> None:
    costs = CallCosts()
    costs.learn(KIND, 0, 1.0)
    costs.learn(KIND, 1, 0.0)
    costs.learn(KIND, 1, float("nan"))
    assert costs.seconds(KIND, 1) == UNMEASURED_SECONDS


def test_kinds_and_sizes_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_KINDS", 2)
    monkeypatch.setattr(module, "_MAX_SIZES", 2)
    costs = CallCosts()
    for number in range(9):
        costs.learn(number, number + 1, 1.0 + number)
        costs.learn("busy", number + 1, 1.0)
    assert list(costs._kinds) == [8, "busy"]
    assert len(costs._kinds["busy"]._sizes) == 2
