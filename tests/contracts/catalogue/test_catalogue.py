"""The catalogue file: valid and invalid rows, and how sources are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.catalogue.catalogue import Catalogue, read_catalogue
from contracts.catalogue.families import FAMILIES
from contracts.errors import CatalogueError, NotFound
from contracts.settings import BUILT_IN_CATALOGUE

MODEL = '[[models]]\nid = "{id}"\nfamily = "{family}"\nsource = "{source}"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "catalogue.toml"
    path.write_text(text, encoding="utf-8")
    return path


def model(id: str = "one", family: str = "sdxl", source: str = "somebody/model") -> str:
    return MODEL.format(id=id, family=family, source=source)


def test_the_built_in_catalogue_offers_a_model_of_every_family_and_its_files_are_there() -> None:
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    assert {row.family for row in catalogue.models} == set(FAMILIES)
    for row in (*catalogue.models, *catalogue.loras, *catalogue.controlnets):
        assert isinstance(catalogue.locate(row.source), Path), row.id


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("not toml", "catalogue.toml"),
        ('default_model = "one"\n', "models"),
        ('default_model = "two"\n' + model(), "must be the id of a model"),
        ('default_model = "one"\n' + model() + model(), "more than once"),
        ('default_model = "one"\n' + model(family="sd0"), "unknown family 'sd0'"),
        ('default_model = "One"\n' + model(id="One"), "pattern"),
        ('default_model = "one"\n' + model() + "speed = 3\n", "speed"),
        ('default_model = "one"\n' + model() + 'defaults = { scheduler = "flow_euler" }\n', "does not work with"),
        ('default_model = "one"\n' + model() + "defaults = { wings = 2 }\n", "unknown defaults"),
    ],
)
def test_a_catalogue_with_invalid_rows_is_refused_with_the_reason(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(CatalogueError, match=complaint):
        read_catalogue(write(tmp_path, text))


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="catalogue file not found"):
        read_catalogue(tmp_path / "nothing.toml")


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return read_catalogue(write(tmp_path, 'default_model = "one"\n' + model()))


def test_a_source_is_a_path_where_one_exists_and_a_hub_id_otherwise(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    assert catalogue.locate("here") == tmp_path / "here"
    assert catalogue.locate(str(tmp_path / "here")) == tmp_path / "here"
    assert catalogue.locate("somebody/model") == "somebody/model"


@pytest.mark.parametrize("source", ["gone", "/gone", "./gone", "gone.safetensors", "a/b/c"])
def test_a_source_that_can_only_be_a_path_must_exist(catalogue: Catalogue, source: str) -> None:
    with pytest.raises(CatalogueError, match="no such file"):
        catalogue.locate(source)


def test_an_unknown_row_is_not_found(catalogue: Catalogue) -> None:
    for find in (catalogue.model, catalogue.lora, catalogue.controlnet):
        with pytest.raises(NotFound):
            find("nothing")
