"""Reads a zip file of images and captions: bounded before anything is unpacked, and nothing is unpacked to disk.

A caption is a text file beside its image, with the same name and the ending `.txt`. Decodes no image.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from contracts.errors import FieldProblem, InvalidRequest

#: The end of a zip file: signature, four numbers of disks and entries, size and offset of the directory, comment.
_END, _END_SIGNATURE = struct.Struct("<4s4H2LH"), b"PK\x05\x06"
_LOCATOR_BYTES, _LOCATOR_SIGNATURE = 20, b"PK\x06\x07"
_MAX_COMMENT_BYTES = 2**16
#: Of the list of entries: room for a thousand long names.
_MAX_DIRECTORY_BYTES = 2**20
_MAX_CAPTION_BYTES = 4000
_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff", ".bmp", ".gif"})
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_FIELD = "file"


@dataclass(frozen=True)
class ArchivedImage:
    """An image in a zip file.

    Attributes:
        name: path in the file.
        caption: of the text file beside it; None without one.
        read: returns its bytes; raises InvalidRequest where they are not what the list of entries says.
    """

    name: str
    caption: str | None
    read: Callable[[], bytes]


class TrainingArchive:
    """An open zip file of images and captions. A context manager."""

    def __init__(self, path: Path, max_images: int, max_image_bytes: int, max_bytes: int) -> None:
        """Open it, and check its list of entries; `max_bytes` is what all images may have, unpacked.

        Raises:
            InvalidRequest: it is not a zip file, it is damaged, encrypted or too large, or it has entries that are
                neither images nor captions.
        """
        self._max_images, self._max_image_bytes, self._max_bytes = max_images, max_image_bytes, max_bytes
        _check_directory(path, 2 * max_images)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise _refused(f"is a damaged zip file ({error}); pack it again") from None
        try:
            self._images, self._captions = self._sorted()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> TrainingArchive:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    @property
    def images(self) -> Iterator[ArchivedImage]:
        """The images, sorted by their names.

        Raises:
            InvalidRequest: a caption is too long or is not UTF-8.
        """
        for name, entry in sorted(self._images.items()):
            text = self._captions.get(str(PurePosixPath(name).with_suffix("")))
            caption = None if text is None else self._read_caption(text)

            def read(entry: zipfile.ZipInfo = entry) -> bytes:
                return self._read(entry, self._max_image_bytes)

            yield ArchivedImage(name, caption, read)

    def _sorted(self) -> tuple[dict[str, zipfile.ZipInfo], dict[str, zipfile.ZipInfo]]:
        """Images by name, and captions by name without ending."""
        images: dict[str, zipfile.ZipInfo] = {}
        captions: dict[str, zipfile.ZipInfo] = {}
        for entry in self._zip.infolist():
            path = PurePosixPath(entry.filename)
            if entry.is_dir() or "__MACOSX" in path.parts or path.name.startswith("."):
                continue  # what a file manager adds
            _check_entry(entry, path)
            ending = path.suffix.lower()
            table, key = (images, str(path)) if ending in _IMAGES else (captions, str(path.with_suffix("")))
            if ending not in _IMAGES and ending != ".txt":
                allowed = "images, and captions in .txt files with the images' names"
                raise _refused(f"has the entry {path.name!r:.100}, but may have only {allowed}")
            if key in table:
                raise _refused(f"has two entries {entry.filename!r:.100}")
            table[key] = entry
        self._check_pairs(images, captions)
        return images, captions

    def _check_pairs(self, images: dict[str, zipfile.ZipInfo], captions: dict[str, zipfile.ZipInfo]) -> None:
        if not images:
            raise _refused("has no images")
        if len(images) > self._max_images:
            raise _refused(f"has {len(images)} images", f"up to {self._max_images} images")
        stems = {str(PurePosixPath(name).with_suffix("")) for name in images}
        alone = sorted(captions.keys() - stems)
        if alone:
            raise _refused(f"has the caption {alone[0] + '.txt'!r:.100}, but no image of that name")
        for entry in images.values():
            if entry.file_size > self._max_image_bytes:
                message = f"has the image {entry.filename!r:.100} of {entry.file_size} bytes"
                raise _refused(message, f"up to {self._max_image_bytes} bytes an image")

        total = sum(entry.file_size for entry in (*images.values(), *captions.values()))
        if total > self._max_bytes:
            raise _refused(f"has {total} bytes unpacked", f"up to {self._max_bytes} bytes")

    def _read_caption(self, entry: zipfile.ZipInfo) -> str:
        data = self._read(entry, _MAX_CAPTION_BYTES)
        try:
            text = data.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise _refused(f"has the caption {entry.filename!r:.100}, which is not UTF-8") from None
        if not text:
            raise _refused(f"has the caption {entry.filename!r:.100}, which is empty; leave it out")
        return text

    def _read(self, entry: zipfile.ZipInfo, max_bytes: int) -> bytes:
        """The bytes of an entry; no more are unpacked than it may have, nor than the list of entries says."""
        try:
            with self._zip.open(entry) as stream:
                data = stream.read(max_bytes + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
            reason = f"which cannot be read ({type(error).__name__})"
            raise _refused(f"has the entry {entry.filename!r:.100}, {reason}; pack it again") from None
        if len(data) > max_bytes:
            raise _refused(f"has the entry {entry.filename!r:.100} of more than {max_bytes} bytes")
        return data


def _check_directory(path: Path, max_entries: int) -> None:
    """Refuse a file whose list of entries would take much memory, before it is read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _END.size - _MAX_COMMENT_BYTES))
        tail = file.read()
    begin = tail.rfind(_END_SIGNATURE)
    if begin < 0 or len(tail) - begin < _END.size:
        raise _refused("is not a zip file; send images and captions in one")
    if tail[max(0, begin - _LOCATOR_BYTES) : begin].startswith(_LOCATOR_SIGNATURE):
        raise _refused("is a zip file in the format for more than 4 GiB (ZIP64); pack it without")
    _, _, _, _, entries, directory_bytes, _, _ = _END.unpack_from(tail, begin)
    # Beside images and captions, folders and what file managers add.
    if entries > 4 * max_entries or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise _refused(f"has {entries} entries", f"up to {max_entries // 2} images, each with a caption")


def _check_entry(entry: zipfile.ZipInfo, path: PurePosixPath) -> None:
    name = f"{entry.filename!r:.100}"
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in path.parts[0]:
        raise _refused(f"has an entry outside itself: {name}")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise _refused(f"has a link: {name}")
    if entry.flag_bits & 1:
        raise _refused(f"has the entry {name}, which is encrypted; pack it without a password")
    if entry.compress_type not in _METHODS:
        raise _refused(f"has the entry {name} in a compression that is not read; use deflate")


def _refused(message: str, allowed: str | None = None) -> InvalidRequest:
    return InvalidRequest([FieldProblem(_FIELD, message, allowed) if allowed else FieldProblem(_FIELD, message)])
