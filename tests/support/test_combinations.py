"""The rows that `make test` tries of a product."""

from __future__ import annotations

from itertools import product

import pytest

from tests.support import combinations
from tests.support.combinations import covering

ROWS = list(product(("sdxl", "sd3", "flux"), ("txt2img", "img2img", "inpaint", "controlnet"), ("euler", "ddim")))


def test_each_value_occurs_in_few_rows_that_are_spread_over_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combinations, "ALL", False)
    chosen = covering(ROWS)
    assert len(chosen) == 4
    columns, all_columns = ([set(column) for column in zip(*rows, strict=True)] for rows in (chosen, ROWS))
    assert columns == all_columns


def test_all_rows_are_tried_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combinations, "ALL", True)
    assert covering(ROWS) == ROWS
