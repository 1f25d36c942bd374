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


def paired(path: Path) -> list[tuple[str, str | None, tuple[str, bytes] | None]]:
    with TrainingArchive(path, 5, _LIMIT_BYTES, 2 * _LIMIT_BYTES) as archive:
        return [
            (one.name, one.caption, None if one.control is None else (one.control.name, one.control.read()))
            for one in archive.images
        ]


def test_control_images_are_found_by_their_names_or_by_metadata(tmp_path: Path) -> None:
    by_name: dict[str, bytes | str] = {"s/a.jpg": b"a", "s/a.control.PNG": b"c", "s/a.txt": "a dog", "b.png": b"b"}
    assert paired(packed(tmp_path, by_name)) == [
        ("b.png", None, None),
        ("s/a.jpg", "a dog", ("s/a.control.PNG", b"c")),
    ]
    lines = [
        '{"image": "images/2.png", "conditioning_image": "conditioning/2.png", "text": "a cat"}',
        "",
        '{"file_name": "./images/1.png", "conditioning_image": "conditioning/2.png"}',
    ]
    by_metadata: dict[str, bytes | str] = {
        "set/metadata.jsonl": "\n".join(lines),
        "set/images/1.png": b"1",
        "set/images/2.png": b"2",
        "set/conditioning/2.png": b"c",
    }
    assert paired(packed(tmp_path, by_metadata)) == [
        ("set/images/1.png", None, ("set/conditioning/2.png", b"c")),
        ("set/images/2.png", "a cat", ("set/conditioning/2.png", b"c")),
    ]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({}, "no images"),
        ({"a.control.png": b"x", "b.png": b"x"}, "the control image 'a.control.png', but no image 'a'"),
        ({"a.png": b"x", "metadata.jsonl": "[]"}, "line 1 of metadata.jsonl"),
        ({"a.png": b"x", "metadata.jsonl": '{"image": "b.png"}'}, "no image 'b.png', which metadata.jsonl names"),
        ({"a.png": b"x", "metadata.jsonl": '{"image": "../a.png"}'}, "no image '../a.png'"),
        ({"a.png": b"x", "b.png": b"x", "metadata.jsonl": '{"image": "a.png"}'}, "'b.png', which no line"),
        ({"a.png": b"x", "metadata.jsonl": '{"text": "of what?"}'}, "one image in file_name or image in line 1"),
        ({"a.png": b"x", "metadata.jsonl": '{"image": "a.png", "label": 3}'}, "the column 'label' in line 1"),
        ({"a.png": b"x", "metadata.jsonl": '{"image": "a.png"}\n{"image": "a.png"}'}, "'a.png' in two lines"),
        ({"a.png": b"x", "a.txt": "x", "metadata.jsonl": '{"image": "a.png"}'}, "the caption 'a.txt'"),
        ({"a.png": b"x", "metadata.jsonl": "", "b/metadata.jsonl": ""}, "two files metadata.jsonl"),
        (
            {"a.png": b"x", "metadata.jsonl": "\n".join(f'{{"image": "{number}.png"}}' for number in range(9))},
            "names more than 5 images in metadata.jsonl",
        ),
        ({"a.txt": "only a caption"}, "no images"),
        ({f"{number}.png": b"x" for number in range(6)}, "6 images"),
        ({"a.png": b"x", "b.txt": "of nothing"}, "'b.txt', but no image of that name"),
        ({"a.png": b"x", "setup.exe": b"x"}, "'setup.exe'"),
        ({"../a.png": b"x"}, "outside the archive"),
        ({"/etc/a.png": b"x"}, "outside the archive"),
        ({"C:/a.png": b"x"}, "outside the archive"),
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
