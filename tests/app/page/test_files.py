"""The page's files: complete, no other host, no script or style in the markup, a place for every field."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

from app.page.files import page_headers, read_files
from app.parsing.narrow_schemas import training_schemas
from app.parsing.schemas import schemas_for
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE

VENDORED = "vendor/"
#: For people, not for browsers.
DOCUMENTS = {"vendor/lit-html/LICENSE", "vendor/lit-html/README.md"}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name: file.data.decode() for name, file in read_files().items()}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return read_catalogue(BUILT_IN_CATALOGUE)


def imports_of(name: str, text: str) -> set[str]:
    """The files that a module imports, by their paths."""
    found = re.findall(r"""(?:from|import)\s*"(\.[^"]+)";?""", text)
    parts = [PurePosixPath(name).parent.joinpath(path).parts for path in found]
    return {
        "/".join(part for at, part in enumerate(path) if part != ".." and path[at + 1 : at + 2] != ("..",))
        for path in parts
    }


def test_the_page_loads_every_file_that_is_there_and_no_other(texts: dict[str, str]) -> None:
    loaded = set(re.findall(r'(?:href|src)="page/([^"]+)"', texts["index.html"]))
    waiting = [name for name in loaded if name.endswith(".js")]
    while waiting:
        name = waiting.pop()
        waiting += (new := imports_of(name, texts[name]) - loaded)
        loaded |= new

    assert loaded | {"index.html"} | DOCUMENTS == set(texts)


def test_a_browser_is_told_what_each_file_is(texts: dict[str, str]) -> None:
    kinds = {PurePosixPath(name).suffix: read_files()[name].media_type.partition(";")[0] for name in texts}

    assert kinds[".html"] == "text/html"
    assert kinds[".js"] == "text/javascript"
    assert kinds[".css"] == "text/css"
    assert kinds[".svg"] == "image/svg+xml"


def test_no_file_names_another_host(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        if not name.startswith(VENDORED):
            assert set(re.findall(r"https?://[^\s\"'<>]+", text)) <= {"http://www.w3.org/2000/svg"}, name


def test_no_markup_has_a_script_or_a_style_in_it(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        if name == "index.html" or name.startswith("views/"):
            assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]*\ssrc=)", text), name


def test_no_file_is_longer_than_a_page_of_code_may_be(texts: dict[str, str]) -> None:
    assert {name: text.count("\n") for name, text in texts.items() if text.count("\n") > 300} == {}


def test_a_policy_lets_in_nothing_but_this_service_and_the_bucket() -> None:
    policy = page_headers(None)["Content-Security-Policy"]

    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "http" not in policy
    assert "unsafe" not in policy
    with_bucket = page_headers("https://bucket.example")["Content-Security-Policy"]
    assert with_bucket == policy.replace("blob:;", "blob: https://bucket.example;")


@pytest.mark.parametrize("id", ["shapes-sdxl", "shapes-sd3", "shapes-flux", "shapes-sd15", "shapes-kontext"])
def test_every_field_that_a_model_takes_has_a_label_and_a_place(
    texts: dict[str, str], catalogue: Catalogue, id: str
) -> None:
    known = set(re.findall(r"\b([a-z]\w*)(?:: \"|\",)", texts["fields.js"])) | {"task", "model"}

    model = catalogue.model(id)
    for task, schema in [*schemas_for(model, catalogue).items(), *training_schemas(model).items()]:
        assert set(schema["properties"]) - known == set(), task
        for definition in schema["$defs"].values():
            assert set(definition.get("properties", ())) - known == set(), task


def test_the_library_that_is_vendored_has_its_license_and_version(texts: dict[str, str]) -> None:
    assert "BSD 3-Clause License" in texts["vendor/lit-html/LICENSE"]
    version = re.search(r"lit-html (\d+\.\d+\.\d+)", texts["vendor/lit-html/README.md"])
    assert version is not None
    assert f'"{version[1]}"' in texts["vendor/lit-html/lit-html.js"]
