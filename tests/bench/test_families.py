"""The table of families, as the page shows it."""

from __future__ import annotations

from bench import families
from contracts.catalogue.families import FAMILIES


def test_the_page_has_the_table_that_the_command_writes() -> None:
    page = families.PAGE.read_text(encoding="utf-8")
    assert families.fill(page.replace("| `auraflow` ", "| `older`    ")) == page
    assert all(f"\n| `{family}` " in page for family in FAMILIES)
