"""How many calls of a kind are expected in a row, from those that were seen."""

from __future__ import annotations

import pytest

from worker.pool.call_history import CallHistory


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ("", 2),  # nothing is known
        ("B", 2),
        ("A", 2),  # one was seen, and one begins
        ("AAAA", 5),
        ("AB", 1),
        ("ABAB", 1),
        ("AAAABAAB", 3),  # as many as the mean of the earlier rows
        ("AAAABA", 4),  # it is the second in its row; the earlier one had four
        ("B" * 80, 2),  # what is long ago is forgotten
        ("A" + "B" * 64, 2),
    ],
)
def test_calls_are_expected_to_go_on_as_they_have(seen: str, expected: float) -> None:
    history = CallHistory()
    for model in seen:
        history.begin(model, "all resident")
    assert history.begin("A", "all resident") == expected


def test_another_plan_of_the_same_model_is_another_kind() -> None:
    history = CallHistory()
    for plan in ("all resident", "T5 on demand") * 2:
        history.begin("A", plan)
    assert history.begin("A", "all resident") == 1
    assert history.begin("A", "T5 streamed") == 2


def test_a_model_is_forgotten_after_64_calls_of_others() -> None:
    history = CallHistory()
    history.begin("A", "all resident")
    for count in range(64):
        assert history.has_model("A"), count
        history.begin("B", "all resident")
    assert not history.has_model("A")
