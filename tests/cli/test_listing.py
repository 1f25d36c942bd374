"""Listings: a table for people, a row of JSON a line for programs, and a sentence where there is nothing."""

from __future__ import annotations

import argparse
import json

import pytest

from cli.listing import add_list_arguments, print_rows
from cli.main import main

ROWS = [{"id": "a", "count": 1}, {"id": "longer", "count": 20}]


def show(*words: str, rows: list[dict[str, object]]) -> None:
    parser = argparse.ArgumentParser()
    add_list_arguments(parser, 20)
    arguments = parser.parse_args(words)
    print_rows(arguments, ("id", "count"), rows, lambda row: (row["id"], row["count"]), "no entries")


def test_rows_are_a_table_or_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    show(rows=[dict(row) for row in ROWS])
    assert capsys.readouterr().out == "id      count\na       1\nlonger  20\n"
    show("--json", rows=[dict(row) for row in ROWS])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == ROWS
    show(rows=[])
    assert capsys.readouterr() == ("", "no entries\n")
    show("--json", rows=[])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1.5", "²"])
@pytest.mark.parametrize("command", [["jobs", "list"], ["admin", "jobs"], ["admin", "usage"]])
def test_a_limit_that_is_no_number_of_rows_is_refused_before_any_call(
    command: list[str], limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, f"--limit={limit}"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--limit: must be a whole number from 1, got {limit!r}" in line
