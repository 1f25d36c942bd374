"""The catalogue file: valid and invalid rows, and how sources are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec
from contracts.catalogue.reader import read_catalogue
from contracts.errors import CatalogueError, NotFound
from contracts.hub.source import HubSource
from contracts.settings import BUILT_IN_CATALOGUE
from tests.support.trained import TRAINED_FAMILIES

HUB = "https://huggingface.co"
COMMIT = "4" * 40
MODEL = '[[models]]\nid = "{id}"\nfamily = "{family}"\nsource = "{source}"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "catalogue.toml"
    path.write_text(text, encoding="utf-8")
    return path


def model(id: str = "one", family: str = "sdxl", source: str = "somebody/model") -> str:
    return MODEL.format(id=id, family=family, source=source)


def lora(fields: str = "", source: str = "somebody/loras") -> str:
    return f'[[loras]]\nid = "style"\nfamily = "sdxl"\nsource = "{source}"\n{fields}\n'


def test_the_built_in_catalogue_offers_trained_models_and_its_files_are_there() -> None:
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    assert {row.family for row in catalogue.models} == {*TRAINED_FAMILIES, "sd15"}
    for row in (*catalogue.models, *catalogue.loras, *catalogue.controlnets):
        assert isinstance(catalogue.place(row), Path), row.id


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("not toml", "catalogue.toml"),
        ('default_model = "one"\n', "models"),
        ('default_model = "two"\n' + model(), "must be the id of a model"),
        ('default_model = "one"\n' + model() + model(), "more than once"),
        ('default_model = "one"\n' + model() + 'aliases = ["dall-e-3", "one"]\n', "got one twice"),
        ('default_model = "one"\n' + model() + 'aliases = ["a", "a"]\n', "got a twice"),
        ('default_model = "one"\n' + model() + 'aliases = ["../up"]\n', "aliases"),
        ('default_model = "one"\n' + model(family="sd0"), "unknown family 'sd0'"),
        ('default_model = "One"\n' + model(id="One"), "pattern"),
        ('default_model = "one"\n' + model() + "speed = 3\n", "speed"),
        ('default_model = "one"\n' + model() + 'defaults = { scheduler = "flow_euler" }\n', "does not work with"),
        ('default_model = "one"\n' + model() + "defaults = { wings = 2 }\n", "unknown defaults"),
        ('default_model = "one"\n' + model(source="/x") + 'revision = "v1"\n', "'/x' is a path"),
        ('default_model = "one"\n' + model() + 'revision = "../up"\n', "revision"),
        ('default_model = "one"\n' + model() + 'variant = "../up"\n', "variant"),
        ('default_model = "one"\n' + model(source=f"{HUB}/a/b/tree/v1") + 'revision = "v2"\n', "remove one"),
        ('default_model = "one"\n' + model(source="https://elsewhere.org/a/b"), "an address of the hub"),
        ('default_model = "one"\n' + model() + lora('file = "../x.safetensors"'), "file"),
        ('default_model = "one"\n' + model() + lora('file = "x.bin"'), "file"),
        ('default_model = "one"\n' + model() + lora('file = "x.safetensors"', "a/b/y.safetensors"), "remove one"),
        ('default_model = "one"\n' + model() + lora('file = "x.safetensors"', "y.safetensors"), "remove one"),
        ('default_model = "one"\n' + model() + lora('file = "x.safetensors"\nvariant = "fp16"'), "remove one"),
    ],
)
def test_a_catalogue_with_invalid_rows_is_refused_with_the_reason(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(CatalogueError, match=complaint):
        read_catalogue(write(tmp_path, text))


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return read_catalogue(write(tmp_path, 'default_model = "one"\n' + model()))


def test_a_source_is_a_path_where_one_exists_and_on_a_hub_otherwise(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "here" / "too").mkdir(parents=True)
    for source in ("here", "here/too", str(tmp_path / "here")):
        assert catalogue.locate(source) == tmp_path / source
    assert (
        catalogue.locate("somebody/model")
        == catalogue.place(catalogue.model("one"))
        == HubSource("somebody/model")
    )


@pytest.mark.parametrize("source", ["gone", "/gone", "./gone", "gone.safetensors", "a/b/c", "modelscope:a/b"])
def test_a_source_that_can_only_be_a_path_must_exist(catalogue: Catalogue, source: str) -> None:
    with pytest.raises(CatalogueError, match="was not found on this machine"):
        catalogue.locate(source)
    with pytest.raises(CatalogueError, match="was not found on this machine"):
        catalogue.place(LoraSpec(id="x", family="sdxl", source=source))


@pytest.mark.parametrize(
    ("source", "fields", "expected"),
    [
        ("a/b", {}, HubSource("a/b")),
        ("a/b", {"revision": "refs/pr/3"}, HubSource("a/b", "refs/pr/3")),
        ("a/b", {"file": "deep/x.safetensors"}, HubSource("a/b", None, "deep/x.safetensors")),
        ("a/b/deep/x.safetensors", {"revision": "v1"}, HubSource("a/b", "v1", "deep/x.safetensors")),
        (f"{HUB}/a/b", {"revision": "v1"}, HubSource("a/b", "v1")),
        (f"{HUB}/a/b/tree/v1", {"file": "x.safetensors"}, HubSource("a/b", "v1", "x.safetensors")),
        (f"{HUB}/a/b/blob/v1/x.safetensors", {}, HubSource("a/b", "v1", "x.safetensors")),
        (f"{HUB}/a/b/resolve/v1/x.safetensors?download=true", {}, HubSource("a/b", "v1", "x.safetensors")),
    ],
)
@pytest.mark.parametrize("kind", [LoraSpec, ControlNetSpec])
def test_a_rows_source_revision_and_file_name_one_place_on_a_hub(
    catalogue: Catalogue,
    kind: type[LoraSpec | ControlNetSpec],
    source: str,
    fields: dict[str, str],
    expected: HubSource,
) -> None:
    row = kind.model_validate({"id": "x", "family": "sdxl", "source": source, **fields})
    assert catalogue.place(row) == expected
    assert catalogue.place(row.pinned(COMMIT)) == replace(expected, revision=COMMIT)


def test_a_pinned_model_pins_its_configuration_too(catalogue: Catalogue) -> None:
    row = catalogue.model("one").model_copy(update={"source": "a/b/x.safetensors", "config": "a/c"})
    pinned = row.pinned(COMMIT, "5" * 40)
    assert catalogue.place(pinned) == HubSource("a/b", COMMIT, "x.safetensors")
    assert pinned.config is not None
    assert catalogue.locate(pinned.config) == HubSource("a/c", "5" * 40)
    assert row.pinned(None) == row


def test_a_loras_file_is_found_in_a_folder_on_this_machine(catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "styles" / "deep" / "x.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    row = LoraSpec(id="x", family="sdxl", source="styles", file="deep/x.safetensors")
    assert catalogue.place(row) == file
    with pytest.raises(CatalogueError, match=r"has no file y\.safetensors"):
        catalogue.place(row.model_copy(update={"file": "y.safetensors"}))


def test_a_revision_of_what_is_on_this_machine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "somebody" / "model").mkdir(parents=True)
    with pytest.raises(CatalogueError, match="'somebody/model' is on this machine"):
        read_catalogue(write(tmp_path, 'default_model = "one"\n' + model() + 'revision = "v1"\n'))


def test_an_unknown_row_is_not_found(catalogue: Catalogue) -> None:
    for find in (catalogue.model, catalogue.lora, catalogue.controlnet):
        with pytest.raises(NotFound):
            find("nothing")
