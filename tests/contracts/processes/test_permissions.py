"""Other users of the machine can read nothing of a service's data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.processes.permissions import keep_private


@pytest.fixture(autouse=True)
def umask_restored() -> Iterator[None]:
    """Each test begins with the usual umask, which lets everybody read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def make_folders(data: Path, *names: str) -> None:
    for name in ("", *names):
        (data / name).mkdir(mode=0o755)


def mode(path: Path) -> str:
    return f"{path.stat().st_mode & 0o777:o}"


@pytest.mark.parametrize(("from_group", "folder_mode", "file_mode"), [(True, "700", "600"), (False, "750", "640")])
def test_new_and_existing_folders_are_closed(
    tmp_path: Path, from_group: bool, folder_mode: str, file_mode: str
) -> None:
    data = tmp_path / "data"
    make_folders(data, "redis", "storage")

    keep_private(data, from_group=from_group)

    (data / "new").mkdir()
    (data / "new" / "file").write_text("secret", encoding="utf-8")
    assert {mode(data / name) for name in ("", "redis", "storage", "new")} == {folder_mode}
    assert mode(data / "new" / "file") == file_mode


def test_a_folder_that_a_group_shares_stays_shared(tmp_path: Path) -> None:
    make_folders(tmp_path / "data", "storage")
    (tmp_path / "data" / "storage").chmod(0o2777)
    os.umask(0o002)

    keep_private(tmp_path / "data", from_group=False)

    assert f"{(tmp_path / 'data' / 'storage').stat().st_mode & 0o7777:o}" == "2770"
    (tmp_path / "data" / "storage" / "images").mkdir()
    assert mode(tmp_path / "data" / "storage" / "images") == "770"


def test_a_folder_that_holds_other_things_keeps_its_rights_and_ours_in_it_are_closed(tmp_path: Path) -> None:
    data = tmp_path / "home"
    make_folders(data, "redis", "documents")

    keep_private(data, from_group=True)

    assert {name: mode(data / name) for name in ("", "redis", "documents")} == {
        "": "755",
        "redis": "700",
        "documents": "755",
    }


def test_a_data_folder_that_does_not_exist_is_not_created(tmp_path: Path) -> None:
    keep_private(tmp_path / "none", from_group=True)
    assert list(tmp_path.iterdir()) == []
