"""A catalogue whose file changes while a process runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import CatalogueError, NotFound
from contracts.requests.catalogue_reload import CatalogueReload, Changes
from contracts.requests.model_defaults import read_checked_catalogue
from contracts.settings import BUILT_IN_CATALOGUE

MODELS = BUILT_IN_CATALOGUE.parent


def row(id: str, family: str = "sdxl", **fields: str) -> str:
    more = "".join(f'{name} = "{value}"\n' for name, value in fields.items())
    return f'[[models]]\nid = "{id}"\nfamily = "{family}"\nsource = "{MODELS}/shapes-{family}"\n{more}'


class File:
    """A catalogue file, and a process that has read it."""

    def __init__(self, path: Path, *, keeps_removed: bool = False) -> None:
        self.path = path
        self.write(row("one"))
        self.catalogue: Catalogue = read_checked_catalogue(path)
        self.reload = CatalogueReload(path, self.catalogue, keeps_removed=keeps_removed)

    def write(self, *rows: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text('default_model = "one"\n' + "".join(rows), encoding="utf-8")
        new.replace(self.path)

    @property
    def ids(self) -> list[str]:
        return [model.id for model in self.catalogue.models]


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "catalogue.toml")


def test_rows_that_are_added_and_removed_are_seen_by_all_that_hold_the_catalogue(file: File) -> None:
    holder = file.catalogue
    assert file.reload.refresh() == Changes()
    file.write(row("one"), row("two", "flux"))
    assert file.reload.refresh() == Changes(added=("two",))
    assert holder.model("two").family == "flux"
    assert file.reload.refresh() == Changes()
    file.write(row("one"))
    assert file.reload.refresh() == Changes(removed=("two",))
    with pytest.raises(NotFound):
        holder.model("two")
    assert [len(changes.added) for changes in file.reload.news] == [1, 0]


@pytest.mark.parametrize(
    "broken",
    [
        row("two", "nothing"),
        '[[models]]\nid = "two"\nfamily = "sdxl"\nsource = "./nowhere"\n',
        f'[[models]]\nid = "two"\nfamily = "sdxl"\nsource = "{MODELS}/shapes-flux"\n',
        "[[models",
    ],
)
def test_a_file_that_is_wrong_changes_nothing_and_is_told_once(file: File, broken: str) -> None:
    file.write(row("one"), row("three"), broken)
    with pytest.raises(CatalogueError):
        file.reload.refresh()
    assert file.ids == ["one"]
    assert file.reload.refresh() == Changes()
    file.write(row("one"), row("three"))
    assert file.reload.refresh() == Changes(added=("three",))


def test_a_file_that_is_away_for_a_moment_changes_nothing(file: File) -> None:
    file.path.unlink()
    assert file.reload.refresh() == Changes()
    file.write(row("one"), row("two"))
    assert file.reload.refresh() == Changes(added=("two",))


def test_a_row_that_has_changed_stays_as_it_was_even_if_it_was_removed_in_between(file: File) -> None:
    file.write(row("one", title="new"), row("two"))
    assert file.reload.refresh() == Changes(added=("two",), changed=("one",))
    assert file.catalogue.model("one").title != "new"
    file.write(row("one"))
    file.reload.refresh()
    file.write(row("one"), row("two", "flux"))  # other weights under a name that may be loaded
    assert file.reload.refresh() == Changes(changed=("two",))
    assert file.ids == ["one"]
    file.write(row("one"), row("two"))
    file.reload.refresh()
    assert file.ids == ["one", "two"]


def test_a_worker_keeps_removed_rows_for_jobs_that_run(tmp_path: Path) -> None:
    file = File(tmp_path / "catalogue.toml", keeps_removed=True)
    file.write(row("one"), row("two"))
    file.reload.refresh()
    file.write(row("one"))
    assert file.reload.refresh() == Changes(removed=("two",))
    assert file.ids == ["one", "two"]
