"""The plans of the published models, as the page shows them."""

from __future__ import annotations

import pytest

from bench import plans
from contracts.memory.plan import gib


def test_the_page_has_the_tables_that_the_command_writes() -> None:
    page = plans.PAGE.read_text(encoding="utf-8")
    assert plans.fill(page.replace("| sdxl ", "| old  ")) == page
    rows = [line for line in page.splitlines() if " GiB " in line and "needs" in line]
    assert len(rows) >= len(plans.MODELS) * len(plans.BUDGETS) == 154


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (2**20, "1.0 MiB"), (2**30, "1.0 GiB"), (25 * 2**30 // 2, "12.5 GiB")]
)
def test_bytes_are_printed_in_gib_or_mib(size: int, text: str) -> None:
    assert gib(size) == text
