"""The local storage: atomic writes inside its folder, and Unavailable if it cannot be written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import NotFound, StorageFull, Unavailable
from contracts.storage.local import LocalStorage
from tests.support.disks import full_disk


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "key", ["../outside", "inputs/../../outside", "/etc/passwd", "inputs/.hidden", "plain", ""]
)
def test_a_key_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    storage = LocalStorage(tmp_path / "root")
    with pytest.raises(NotFound):
        storage.write(key, b"x")
    assert files(tmp_path) == []


def test_an_unwritable_storage_is_unavailable_and_leaves_no_partial_file(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file where the folder should be", encoding="utf-8")
    storage = LocalStorage(tmp_path / "root")
    with pytest.raises(Unavailable):
        storage.check()
    with pytest.raises(Unavailable):
        storage.write("inputs/a.png", b"x")
    assert files(tmp_path) == ["root"]


def test_keys_are_found_below_a_prefix_and_nowhere_else(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for key in ("images/one/2/0.png", "images/one/1/0.png", "images/other/1/0.png"):
        storage.write(key, b"x")
    (tmp_path / "images/one/1/.0.png.abc.part").write_bytes(b"half")
    assert storage.find("images/one/") == ["images/one/1/0.png", "images/one/2/0.png"]
    assert storage.find("images/nothing/") == []


def test_deleting_leaves_neither_empty_folders_nor_partial_files(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("images/one/1/0.png", b"x")
    storage.write("images/two/1/0.png", b"x")
    (tmp_path / "images/one/1/.0.png.abc.part").write_bytes(b"half")

    storage.delete("images/one/1/0.png")

    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["two"]


def test_everything_below_a_prefix_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for key in ("images/one/1/0.png", "images/one/2/0.png", "images/other/1/0.png"):
        storage.write(key, b"x")
    (tmp_path / "images/one/1/.0.png.abc.part").write_bytes(b"half")

    storage.clear("images/one/")
    storage.clear("images/one/")

    assert files(tmp_path) == ["images/other/1/0.png"]
    with pytest.raises(NotFound):
        storage.clear("../")


def test_a_full_disk_is_told_from_one_that_does_not_answer_and_keeps_what_is_stored(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("images/job/1/0.png", b"an image")

    with full_disk(), pytest.raises(StorageFull):
        storage.write("images/job/1/0.png", b"another")
    with full_disk(), pytest.raises(StorageFull):
        storage.check()

    storage.check()
    assert storage.read("images/job/1/0.png") == b"an image"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["0.png"]
    assert (storage.free_bytes() or 0) > 0
