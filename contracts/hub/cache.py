"""The cache of one repository's files on disk, in huggingface_hub's layout, which both may share.

    models--ORG--NAME/
        refs/REVISION               the commit that a branch or tag was, when it was last asked for
        trees/COMMIT.json           all files of a commit
        snapshots/COMMIT/PATH       a link to the file in blobs/
        blobs/DIGEST                a file by its SHA-256, or by git's id where it is small
        blobs/DIGEST.verified       ours: the file's content was compared with that digest
        blobs/DIGEST.incomplete     a download that is going on, or was interrupted
    .locks/models--ORG--NAME/DIGEST.lock    locked while the file is downloaded

https://huggingface.co/docs/huggingface_hub/guides/manage-cache. Opens no connection.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from contracts.hub.client import HubFile, is_commit

_CHUNK_BYTES = 4 * 2**20
_TREE_FORMAT = 1
#: Age from which an interrupted download is not expected to be resumed.
_MAX_AGE_SECONDS = 7 * 24 * 3600


class RepositoryCache:
    """The cached files of one repository."""

    def __init__(self, folder: Path, repository: str) -> None:
        """`folder` holds the caches of all repositories, and is created with the first file."""
        name = f"models--{repository.replace('/', '--')}"
        self.repository = repository
        self._root = folder / name
        self._locks = folder / ".locks" / name

    def commit(self, revision: str | None) -> str | None:
        """The commit that a branch or tag was when it was last asked for; None if it never was."""
        if is_commit(revision):
            return revision
        try:
            text = self._ref(revision).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError, ValueError):
            return None
        return text if is_commit(text) else None

    def write_commit(self, revision: str | None, commit: str) -> None:
        """Remember what a branch or tag is now."""
        if not is_commit(revision) and self.commit(revision) != commit:
            _write(self._ref(revision), commit)

    def tree(self, commit: str) -> dict[str, HubFile] | None:
        """All files of a commit; None where its listing was never fetched, or cannot be read."""
        try:
            listing = json.loads((self._root / "trees" / f"{commit}.json").read_text(encoding="utf-8"))
            if listing["format_version"] != _TREE_FORMAT:
                return None
            return {
                name: HubFile(entry.get("lfs_size") or entry["size"], entry["blob_id"], entry.get("lfs_sha256"))
                for name, entry in listing["files"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write_tree(self, commit: str, files: Mapping[str, HubFile]) -> None:
        """Remember all files of a commit."""
        entries = {}
        for name, file in sorted(files.items()):
            entries[name] = {"size": file.size, "blob_id": file.blob_id}
            if file.sha256 is not None:
                entries[name] |= {"lfs_sha256": file.sha256, "lfs_size": file.size}
        text = json.dumps({"format_version": _TREE_FORMAT, "files": entries})
        _write(self._root / "trees" / f"{commit}.json", text)

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit's files, which is there once one of them is."""
        return self._root / "snapshots" / commit

    def blob(self, digest: str) -> Path:
        """Where a file with this content is, or would be."""
        return self._root / "blobs" / digest

    def incomplete(self, digest: str) -> Path:
        """Where that file is while it is downloaded."""
        return self._root / "blobs" / f"{digest}.incomplete"

    def incomplete_bytes(self, digest: str) -> int:
        """How many bytes of it are here already, downloaded or on their way."""
        for path in (self.blob(digest), self.incomplete(digest)):
            with suppress(FileNotFoundError):
                return path.stat().st_size
        return 0

    def has(self, commit: str, name: str, file: HubFile) -> bool:
        """Whether a snapshot has a file, complete by its size."""
        try:
            return (self.snapshot(commit) / name).stat().st_size == file.size
        except OSError:
            return False

    def link(self, commit: str, name: str, file: HubFile) -> None:
        """Make a blob visible in a snapshot, under its path in the repository."""
        link = self.snapshot(commit) / name
        link.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(self.blob(file.digest), link.parent)
        if link.is_symlink() and os.readlink(link) == target:  # noqa: PTH115  # Path.readlink normalizes
            return
        part = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
        part.symlink_to(target)
        part.replace(link)

    def is_verified(self, digest: str) -> bool:
        """Whether a blob's content was compared with its digest, and the file has not changed since."""
        return _is_stamped(self.blob(digest))

    def mark_verified(self, digest: str) -> None:
        """Remember that a blob's content has its digest; nothing where the cache cannot be written."""
        with suppress(OSError):
            _write(_marker(self.blob(digest)), _stamp(self.blob(digest)))

    def remove(self, digest: str) -> None:
        """Delete a blob, which is damaged; links to it stay and lead nowhere."""
        for path in (_marker(self.blob(digest)), self.blob(digest)):
            path.unlink(missing_ok=True)

    def lock(self, digest: str) -> AbstractContextManager[bool]:
        """Try to be the only one that downloads a file; yields whether that worked. Ends with the process.

        huggingface_hub locks the same file in the same way.
        """
        return _lock(self._locks / f"{digest}.lock")

    def sweep(self, wanted: Collection[str]) -> int:
        """Delete what interrupted downloads left and nobody will resume; returns how many bytes that freed.

        In this repository that is what is not among the `wanted` digests, in the whole cache what is a week old.
        """
        freed = 0
        for part in self._root.parent.glob("models--*/blobs/*.incomplete"):
            digest, repository = part.name.partition(".")[0], part.parent.parent
            lock = self._locks.with_name(repository.name) / f"{digest}.lock"
            with suppress(OSError), _lock(lock) as is_free:
                status = part.stat()
                is_old = status.st_mtime < time.time() - _MAX_AGE_SECONDS
                if is_free and (is_old or (repository == self._root and digest not in wanted)):
                    part.unlink()
                    freed += status.st_size
        return freed

    def _ref(self, revision: str | None) -> Path:
        folder = self._root / "refs"
        path = folder / (revision or "main")
        if ".." in path.parts or not path.is_relative_to(folder):
            raise ValueError(f"not a revision: {revision!r}")
        return path


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def verified_sha256(path: Path) -> str | None:
    """The SHA-256 of a file in a snapshot, if its content was compared with it; small files have none."""
    try:
        blob = path.parent / path.readlink()
    except OSError:
        return None
    digest = blob.name
    if len(digest) != 64 or blob.parent.name != "blobs":
        return None
    return digest if _is_stamped(blob) else None


def _is_stamped(blob: Path) -> bool:
    """Whether a blob is as it was when its content was compared with its name."""
    try:
        return _marker(blob).read_text(encoding="utf-8") == _stamp(blob)
    except (OSError, UnicodeDecodeError):
        return False


def _marker(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.verified")


def content_digest(path: Path, like: str, on_chunk: Callable[[], object]) -> str:
    """The digest of a file's content, of the kind of `like`: SHA-256 for 64 hex digits, git's id for 40.

    Args:
        on_chunk: called after each 4 MiB; what it raises ends the reading.
    """
    digest = _new_digest(like, path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            on_chunk()
    return digest.hexdigest()


def _new_digest(like: str, size: int) -> hashlib._Hash:
    """A digest of the kind of `like`, to be updated with all bytes of a file of this size.

    Git's id of a file is SHA-1 of `blob SIZE`, a zero byte and the content
    (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects).
    """
    if len(like) == 64:
        return hashlib.sha256()
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % size)
    return digest


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
