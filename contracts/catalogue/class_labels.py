"""The classes that some models are prompted by: their numbers, and labels with their names. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from contracts.errors import CatalogueError

#: Classes of ImageNet. Images without a class are made with the next number, in diffusers' `DiTPipeline` (0.42).
CLASS_COUNT = 1000
_NUMBERS = frozenset(map(str, range(CLASS_COUNT)))
#: Characters of a label with all its names; ImageNet's have 131 at most.
MAX_LABEL = 500


def read_labels(id2label: object) -> dict[int, str]:
    """Return number -> label, of `id2label` in a `model_index.json`; empty where it has none.

    Raises:
        CatalogueError: it is not the numbers of classes with texts.
    """
    if id2label is None:
        return {}
    if not isinstance(id2label, Mapping) or len(id2label) > CLASS_COUNT:
        raise CatalogueError(f"id2label in model_index.json must be an object with up to {CLASS_COUNT} labels")
    labels = {}
    for number, label in id2label.items():
        if number not in _NUMBERS:
            raise CatalogueError(
                f"id2label in model_index.json has the number {str(number)[:20]!r}, and classes are numbered from "
                f"0 to {CLASS_COUNT - 1}"
            )
        if not isinstance(label, str) or not label or len(label) > MAX_LABEL:
            raise CatalogueError(
                f"id2label in model_index.json must have a text of up to {MAX_LABEL} characters for class {number}"
            )
        labels[int(number)] = label
    return labels


def numbers_of(labels: Mapping[int, str]) -> dict[str, int]:
    """Return name -> number. A label has several names, between commas; of two classes with one name, the last.

    As diffusers' `DiTPipeline` (0.42) reads them.
    """
    return {name.strip(): number for number, label in labels.items() for name in label.split(",")}


def label_problem(label: int | str, labels: Mapping[int, str]) -> str | None:
    """Return what is wrong with a request's class, as the end of a sentence about the field; None: nothing."""
    if isinstance(label, int) or label in numbers_of(labels):
        return None
    if not labels:
        return f"must be a number from 0 to {CLASS_COUNT - 1}: the checkpoint has no names of its classes"
    return (
        f"must be a number from 0 to {CLASS_COUNT - 1} or one of the names in the classes of the model "
        f"(GET /v1/models/ID), got {label[:80]!r}"
    )
