"""Labels of classes: what a checkpoint may have, and what of them requests can name."""

from __future__ import annotations

import pytest

from contracts.catalogue.class_labels import MAX_LABEL, label_problem, numbers_of, read_labels
from contracts.errors import CatalogueError


def test_a_class_has_the_names_between_the_commas_of_its_label() -> None:
    labels = read_labels({"0": "tench, Tinca tinca", "134": "crane", "517": "crane"})
    assert numbers_of(labels) == {"tench": 0, "Tinca tinca": 0, "crane": 517}
    assert read_labels(None) == {}


@pytest.mark.parametrize(
    ("id2label", "problem"),
    [
        (["tench"], "must be an object with up to 1000 labels"),
        ({str(number): "a" for number in range(1001)}, "must be an object with up to 1000 labels"),
        ({"1000": "a"}, "has the number '1000', and classes are numbered from 0 to 999"),
        ({"-1": "a"}, "has the number '-1'"),
        ({"01": "a"}, "has the number '01'"),
        ({"1": 7}, f"must have a text of up to {MAX_LABEL} characters for class 1"),
        ({"1": "a" * (MAX_LABEL + 1)}, f"must have a text of up to {MAX_LABEL} characters for class 1"),
    ],
)
def test_labels_that_are_none_are_refused_with_the_reason(id2label: object, problem: str) -> None:
    with pytest.raises(CatalogueError, match=problem):
        read_labels(id2label)


def test_a_request_can_name_each_number_and_the_names_that_there_are() -> None:
    labels = {0: "tench, Tinca tinca"}
    assert [label_problem(label, labels) for label in (0, 999, "tench")] == [None, None, None]
    assert "got 'Tench'" in str(label_problem("Tench", labels))
    assert "the checkpoint has no names" in str(label_problem("tench", {}))
