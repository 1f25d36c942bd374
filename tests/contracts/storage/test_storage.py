"""Behaviour of every storage, with a local folder and with an S3 server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contracts.errors import NotFound, SettingsError
from contracts.settings import SharedSettings
from contracts.storage import Storage, open_storage
from contracts.storage.bucket import BucketStorage
from contracts.storage.local import LocalStorage


def test_bytes_come_back_as_they_were_written(any_storage: Storage) -> None:
    any_storage.write("inputs/abc.png", b"first")
    any_storage.write("inputs/abc.png", b"second")
    assert any_storage.read("inputs/abc.png") == b"second"
    assert any_storage.exists("inputs/abc.png")


def test_a_large_file_is_written_and_read(any_storage: Storage, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(12 * 2**20 + 1))
    any_storage.write_file("inputs/large.safetensors", source)
    any_storage.read_file("inputs/large.safetensors", target)
    assert target.read_bytes() == source.read_bytes() == any_storage.read("inputs/large.safetensors")
    with pytest.raises(NotFound):
        any_storage.read_file("inputs/none.safetensors", target)


def test_a_part_of_a_file_is_read_alone(any_storage: Storage) -> None:
    any_storage.write("inputs/abc.jsonl", b"0123456789")
    assert any_storage.read_range("inputs/abc.jsonl", 3, 4) == b"3456"
    assert any_storage.read_range("inputs/abc.jsonl", 9, 1) == b"9"
    with pytest.raises(NotFound):
        any_storage.read_range("inputs/none.jsonl", 0, 1)


def test_a_missing_file_is_not_found(any_storage: Storage) -> None:
    assert not any_storage.exists("inputs/none.png")
    with pytest.raises(NotFound):
        any_storage.read("inputs/none.png")


def test_a_deleted_file_is_gone_and_can_be_deleted_again(any_storage: Storage) -> None:
    any_storage.write("images/job/1/0.png", b"x")
    any_storage.delete("images/job/1/0.png")
    any_storage.delete("images/job/1/0.png")
    assert not any_storage.exists("images/job/1/0.png")
    with pytest.raises(NotFound):
        any_storage.read("images/job/1/0.png")


@pytest.mark.parametrize(
    "key", ["../outside", "inputs/../../outside", "/etc/passwd", "inputs/.hidden", "plain", ""]
)
def test_a_key_cannot_leave_the_storage(any_storage: Storage, key: str) -> None:
    for call in (any_storage.read, any_storage.delete):
        with pytest.raises(NotFound):
            call(key)
    with pytest.raises(NotFound):
        any_storage.write(key, b"x")


def test_keys_are_found_below_a_prefix_and_nowhere_else(any_storage: Storage) -> None:
    for key in ("images/one/2/0.png", "images/one/1/0.png", "images/oneself/1/0.png"):
        any_storage.write(key, b"x")
    assert any_storage.find("images/one/") == ["images/one/1/0.png", "images/one/2/0.png"]
    assert any_storage.find("images/nothing/") == []


def test_everything_below_a_prefix_is_cleared_and_nothing_else(any_storage: Storage) -> None:
    for key in ("images/one/1/0.png", "images/one/2/0.png", "images/other/1/0.png"):
        any_storage.write(key, b"x")

    any_storage.clear("images/one/")
    any_storage.clear("images/one/")

    assert any_storage.find("images/") == ["images/other/1/0.png"]
    with pytest.raises(NotFound):
        any_storage.clear("../")


def test_a_working_storage_passes_its_check(any_storage: Storage) -> None:
    any_storage.check()


def test_the_settings_choose_the_storage(tmp_path: Path, bucket: BucketStorage) -> None:
    assert isinstance(open_storage(SharedSettings(data=tmp_path)), LocalStorage)
    chosen = open_storage(SharedSettings(data=tmp_path, storage_url=bucket.url))
    chosen.write("inputs/a.png", b"x")
    assert bucket.read("inputs/a.png") == b"x"


@pytest.mark.parametrize("url", ["ftp://somewhere/else", "s3//typing-error", "nonsense"])
def test_an_unsupported_storage_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="DARKROOM_STORAGE_URL"):
        open_storage(SharedSettings(data=tmp_path, storage_url=url))
