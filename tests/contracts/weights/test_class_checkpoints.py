"""What a checkpoint that is prompted by a class says of its classes and of the size of its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from contracts.weights.row_files import check_row_files
from tests.support.class_checkpoints import write_checkpoint


def catalogue_of(folder: Path, **fields: Any) -> Catalogue:
    row = ModelSpec(id="dit", family="dit", source=str(folder), **fields)
    return Catalogue(root=folder, default_model="dit", models=(row,))


def test_its_row_knows_the_labels_the_size_and_the_schedulers(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, id2label={"1": "goldfish"})

    row = with_checkpoint_limits(catalogue_of(tmp_path)).model("dit")

    assert row.class_labels == {1: "goldfish"}
    assert (row.default("width"), row.default("height")) == (512, 512)
    assert row.schedulers == [
        "ddim", "pndm", "lcm", "tcd", "unipc", "dpmpp_2m", "dpmpp_2m_karras", "dpmpp_2m_sde"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("index", "fields", "problem"),
    [
        ({"id2label": {"x": "goldfish"}}, {}, "id2label in model_index.json has the number 'x'"),
        (
            {},
            {"defaults": {"width": 256}},
            "makes images of 512 × 512 only, and the row's default of width is 256",
        ),
    ],
)
def test_a_checkpoint_that_contradicts_its_row_is_refused(
    index: dict[str, Any], fields: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path, **index)
    catalogue = catalogue_of(tmp_path, **fields)
    with pytest.raises(CatalogueError, match=problem):
        check_row_files(catalogue, catalogue.model("dit"))
