"""The bench of cold models measures what it says."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.loading import release, row
from contracts.catalogue.catalogue import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from worker.checkpoints.files import read_into_page_cache


def test_a_row_tells_the_model_its_size_and_five_figures() -> None:
    id, megabytes, *figures = row(read_catalogue(BUILT_IN_CATALOGUE), "shapes-flux", torch.bfloat16, runs=1)
    assert (id, megabytes) == ("shapes-flux", "8")
    assert len(figures) == 5
    assert all(float(str(figure)) >= 0 for figure in figures)


def test_a_released_file_must_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(2**20))
    assert read_into_page_cache(file) == 0
    release(file)
    assert read_into_page_cache(file) == 2**20
