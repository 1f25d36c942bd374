"""The plans of the published models, as the page shows them."""

from __future__ import annotations

from bench import plans
from contracts.weights.counts.architectures import read_architectures


def test_the_page_has_the_tables_that_the_command_writes() -> None:
    page = plans.PAGE.read_text(encoding="utf-8")
    assert plans.fill(page.replace("| sdxl ", "| old  ")) == page
    rows = [line for line in page.splitlines() if " GiB " in line and "needs" in line]
    assert len(rows) >= len(read_architectures()) * len(plans.BUDGETS)
