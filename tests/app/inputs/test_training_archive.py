"""Zip files of images and captions, honest and hostile: what is refused is named, and little is read of it."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.inputs.training_archive import TrainingArchive
from contracts.errors import InvalidRequest

_LIMIT_BYTES = 10_000


def packed(folder: Path, entries: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "images.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return path


def read(path: Path, max_images: int = 5) -> list[tuple[str, str | None, bytes]]:
    with TrainingArchive(path, max_images, _LIMIT_BYTES, 2 * _LIMIT_BYTES) as archive:
        return [(image.name, image.caption, image.read()) for image in archive.images]


def refusal(path: Path, max_images: int = 5) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(path, max_images)
    (problem,) = caught.value.problems
    assert problem.field == "file"
    return problem.message


def test_captions_are_the_text_files_beside_images(tmp_path: Path) -> None:
    entries: dict[str, bytes | str] = {
        "set/b.png": b"b",
        "set/a.jpg": b"a",
        "set/a.txt": " a dog\n",
        "__MACOSX/x": b"",
        "set/.DS_Store": b"",
    }
    assert read(packed(tmp_path, entries)) == [("set/a.jpg", "a dog", b"a"), ("set/b.png", None, b"b")]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({}, "no images"),
        ({"a.txt": "only a caption"}, "no images"),
        ({f"{number}.png": b"x" for number in range(6)}, "6 images"),
        ({"a.png": b"x", "b.txt": "of nothing"}, "'b.txt', but no image of that name"),
        ({"a.png": b"x", "setup.exe": b"x"}, "'setup.exe'"),
        ({"../a.png": b"x"}, "outside itself"),
        ({"/etc/a.png": b"x"}, "outside itself"),
        ({"C:/a.png": b"x"}, "outside itself"),
        ({"a.png": b"x", "a.txt": b"\xff\xfe\x00"}, "not UTF-8"),
        ({"a.png": b"x", "a.txt": "  \n"}, "is empty"),
        ({"a.png": b"x", "a.txt": "long " * 1000}, "more than 4000 bytes"),
        ({"a.png": bytes(_LIMIT_BYTES + 1)}, "of 10001 bytes"),
        ({f"{number}.png": bytes(_LIMIT_BYTES) for number in range(3)}, "30000 bytes unpacked"),
    ],
)
def test_what_is_wrong_with_an_archive_is_said_by_name(
    tmp_path: Path, entries: Mapping[str, bytes | str], words: str
) -> None:
    assert words in refusal(packed(tmp_path, entries))


def test_a_bomb_that_lies_about_its_size_is_not_unpacked(tmp_path: Path) -> None:
    path = packed(tmp_path, {"a.png": bytes(50_000_000)})
    data = bytearray(path.read_bytes())
    directory = data.rfind(b"PK\x01\x02")
    struct.pack_into("<L", data, directory + 24, 100)  # the size that it says it has
    path.write_bytes(data)
    assert "a.png" in refusal(path)


def test_a_long_list_of_entries_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = packed(tmp_path, {"a.png": b"x"})
    data = bytearray(path.read_bytes())
    struct.pack_into("<HH", data, len(data) - 14, 65_000, 65_000)
    path.write_bytes(data)
    assert "65000 entries" in refusal(path)


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x05\x06", b"\x89PNG" + bytes(100)])
def test_what_is_no_zip_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(data)
    assert "not a zip file" in refusal(path)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path, {"a.png": b"some content"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"some content", b"same content"))
    assert "'a.png'" in refusal(path)


def test_links_and_encrypted_entries_are_refused(tmp_path: Path) -> None:
    path, file = tmp_path / "images.zip", io.BytesIO()
    link = zipfile.ZipInfo("a.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    path.write_bytes(file.getvalue())
    assert "has a link" in refusal(path)
    path = packed(tmp_path, {"a.png": b"x"})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rfind(signature) + offset] |= 1
    path.write_bytes(data)
    assert "encrypted" in refusal(path)
