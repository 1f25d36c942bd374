"""Reports of the benches, and the page that shows them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from bench import page
from bench import report as reports


def test_a_report_says_what_was_run_where_and_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reports, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["api.py", "--runs", "5"])
    with reports.report("api"):
        print("| a table |")
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "api.md").read_text(encoding="utf-8")
    head, _, rest = printed.partition("\n\n")
    assert head.startswith("`python -m bench.api --runs 5`, 20")
    assert " cores of " in head
    assert "torch 2." in head
    assert rest == "| a table |\n"


def test_the_page_takes_new_reports_and_keeps_the_words_and_the_other_blocks(tmp_path: Path) -> None:
    (tmp_path / "api.md").write_text("new \\1 figures\n", encoding="utf-8")
    before = (
        "# Claims\n\n<!-- bench.api -->\nold\n<!-- end -->\n\nwords\n\n<!-- bench.speed -->\nother\n<!-- end -->\n"
    )
    after = page.fill(before, tmp_path)
    assert after == before.replace("old", "new \\1 figures")
    assert page.fill(after, tmp_path) == after


def test_each_report_that_the_page_shows_is_one_of_a_bench() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"<!-- bench\.(\w+) -->\n.*?<!-- end -->", text, re.DOTALL)
    assert len(shown) == len(set(shown)) == text.count("<!-- bench.") == text.count("<!-- end -->") > 0
    assert all((page.PAGE.parent / f"{name}.py").exists() for name in shown)
