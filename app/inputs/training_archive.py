"""Reads a zip file of images and captions: bounded before anything is unpacked, and nothing is unpacked to disk.

A caption is a text file beside its image, with the same name and the ending `.txt`; a control image has it too,
with `.control` before the ending. Or `metadata.jsonl` says both. Decodes no image.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from app.inputs.training_metadata import MAX_METADATA_BYTES, Listed, MetadataProblem, read_metadata
from app.inputs.training_metadata import NAME as METADATA
from contracts.errors import FieldProblem, InvalidRequest

#: The end of a zip file: signature, four numbers of disks and entries, size and offset of the directory, comment.
_END, _END_SIGNATURE = struct.Struct("<4s4H2LH"), b"PK\x05\x06"
_LOCATOR_BYTES, _LOCATOR_SIGNATURE = 20, b"PK\x06\x07"
_MAX_COMMENT_BYTES = 2**16
#: Of the list of entries: room for several thousand names.
_MAX_DIRECTORY_BYTES = 2**20
_MAX_CAPTION_BYTES = 4000
_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff", ".bmp", ".gif"})
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_FIELD = "file"
#: Behind the name of an image, in that of its control image.
_CONTROL = ".control"


@dataclass(frozen=True)
class ArchivedImage:
    """An image in a zip file.

    Attributes:
        name: path in the file.
        read: returns its bytes; raises InvalidRequest where they are not what the list of entries says.
        caption: None without one.
        control: its control image; None without one.
    """

    name: str
    read: Callable[[], bytes]
    caption: str | None = None
    control: ArchivedImage | None = None


class TrainingArchive:
    """An open zip file of images and captions. A context manager."""

    def __init__(self, path: Path, max_images: int, max_image_bytes: int, max_bytes: int) -> None:
        """Open it, and check its list of entries; `max_bytes` is what all images may have, unpacked.

        Args:
            max_images: without control images.

        Raises:
            InvalidRequest: it is not a zip file, it is damaged, encrypted or too large, or it has entries that are
                neither images nor say anything of one.
        """
        self._max_images, self._max_image_bytes, self._max_bytes = max_images, max_image_bytes, max_bytes
        self._images: dict[str, zipfile.ZipInfo] = {}
        #: By the names of their images without ending.
        self._captions: dict[str, zipfile.ZipInfo] = {}
        self._metadata: zipfile.ZipInfo | None = None
        _check_directory(path, max_images)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise _refused(f"is a damaged zip file ({error}); pack it again") from None
        try:
            self._sort()
            self._check_sizes()
            self._listed = self._pair() if self._metadata is None else self._read_metadata(self._metadata)
            if len(self._listed) > max_images:
                raise _refused(f"has {len(self._listed)} images", f"up to {max_images} images")
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
        for listed in sorted(self._listed, key=lambda one: one.name):
            text = self._captions.get(_stem(listed.name))
            caption = listed.caption if text is None else self._read_caption(text)
            control = None if listed.control is None else self._image(listed.control)
            yield replace(self._image(listed.name), caption=caption, control=control)

    def _image(self, name: str) -> ArchivedImage:
        return ArchivedImage(name, lambda: self._read(self._images[name], self._max_image_bytes))

    def _sort(self) -> None:
        """Sort the entries by what they are."""
        for entry in self._zip.infolist():
            path = PurePosixPath(entry.filename)
            if entry.is_dir() or "__MACOSX" in path.parts or path.name.startswith("."):
                continue  # what a file manager adds
            _check_entry(entry, path)
            ending = path.suffix.lower()
            if path.name == METADATA:
                if self._metadata is not None:
                    raise _refused(f"has two files {METADATA}")
                self._metadata = entry
                continue
            if ending not in _IMAGES and ending != ".txt":
                allowed = f"images, captions in .txt files with the images' names, and {METADATA}"
                raise _refused(f"has the entry {path.name!r:.100}, but may have only {allowed}")
            table, key = (self._images, str(path)) if ending in _IMAGES else (self._captions, _stem(str(path)))
            if key in table:
                raise _refused(f"has two entries {entry.filename!r:.100}")
            table[key] = entry

    def _check_sizes(self) -> None:
        if not self._images:
            raise _refused("has no images")
        for entry in self._images.values():
            if entry.file_size > self._max_image_bytes:
                message = f"has the image {entry.filename!r:.100} of {entry.file_size} bytes"
                raise _refused(message, f"up to {self._max_image_bytes} bytes an image")
        total = sum(entry.file_size for entry in (*self._images.values(), *self._captions.values()))
        if total > self._max_bytes:
            raise _refused(f"has {total} bytes unpacked", f"up to {self._max_bytes} bytes")

    def _pair(self) -> list[Listed]:
        """The images with their control images, by their names."""
        controls: dict[str, str] = {}
        for name in self._images:
            stem = _stem(name).removesuffix(_CONTROL)
            if stem == _stem(name):
                continue
            if stem in controls:
                raise _refused(
                    f"has two control images of {stem!r:.100}: {controls[stem]!r:.100} and {name!r:.100}"
                )
            controls[stem] = name
        images = [name for name in self._images if not _stem(name).endswith(_CONTROL)]
        stems = {_stem(name) for name in images}
        alone = sorted(controls.keys() - stems)
        if alone:
            raise _refused(f"has the control image {controls[alone[0]]!r:.100}, but no image {alone[0]!r:.100}")
        texts = sorted(self._captions.keys() - stems)
        if texts:
            raise _refused(f"has the caption {texts[0] + '.txt'!r:.100}, but no image of that name")
        return [Listed(name, control=controls.get(_stem(name))) for name in images]

    def _read_metadata(self, entry: zipfile.ZipInfo) -> list[Listed]:
        """The images as the file of metadata pairs them."""
        if self._captions:
            text = next(iter(self._captions)) + ".txt"
            raise _refused(f"has {METADATA} and the caption {text!r:.100}; give all captions in one of these ways")
        data = self._read(entry, MAX_METADATA_BYTES)
        try:
            listed = read_metadata(data, PurePosixPath(entry.filename).parent, self._max_images)
        except MetadataProblem as error:
            raise _refused(str(error)) from None
        named = [name for one in listed for name in (one.name, one.control) if name is not None]
        missing = next((name for name in named if name not in self._images), None)
        if missing is not None:
            raise _refused(f"has no image {missing!r:.100}, which {METADATA} names")
        unnamed = sorted(self._images.keys() - set(named))
        if unnamed:
            raise _refused(f"has the image {unnamed[0]!r:.100}, which no line of {METADATA} names")
        return listed

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


def _stem(name: str) -> str:
    """A path without its ending."""
    return str(PurePosixPath(name).with_suffix(""))


def _check_directory(path: Path, max_images: int) -> None:
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
    # In addition to images, control images and captions: folders, and files that file managers add.
    if entries > 8 * max_images or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise _refused(f"has {entries} entries", f"up to {max_images} images, each with a caption")


def _check_entry(entry: zipfile.ZipInfo, path: PurePosixPath) -> None:
    name = f"{entry.filename!r:.100}"
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in path.parts[0]:
        raise _refused(f"has an entry that points outside the archive: {name}")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise _refused(f"has a link: {name}")
    if entry.flag_bits & 1:
        raise _refused(f"has the entry {name}, which is encrypted; pack it without a password")
    if entry.compress_type not in _METHODS:
        raise _refused(f"has the entry {name} with an unsupported compression; use deflate")


def _refused(message: str, allowed: str | None = None) -> InvalidRequest:
    return InvalidRequest([FieldProblem(_FIELD, message, allowed) if allowed else FieldProblem(_FIELD, message)])
