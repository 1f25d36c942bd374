"""A catalogue file that cannot be read, and where a problem in one is."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.catalogue.reader import read_catalogue
from contracts.errors import CatalogueError


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="catalogue file not found"):
        read_catalogue(tmp_path / "nothing.toml")


def test_a_problem_is_told_with_its_line_and_the_key_that_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text('[[models]]\nid = "one"\nfamily = "sdxl"\nsorce = "a/b"\n', encoding="utf-8")
    with pytest.raises(CatalogueError, match=r"catalogue\.toml:4: models\.0\.sorce: .*did you mean source\?"):
        read_catalogue(path)
