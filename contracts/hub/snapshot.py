"""All files that a row needs of one repository at one commit: found in the cache, or fetched into it.

Knows no catalogue: what is needed is a function of the repository's files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts.hub.cache import RepositoryCache, content_digest
from contracts.hub.client import HubClient, HubFile, is_commit
from contracts.hub.download import disk_errors, download
from contracts.hub.environment import HubEnvironment, read_environment
from contracts.hub.errors import Cancelled, HubError, HubRefused, HubUnavailable
from contracts.hub.repository_files import RepositoryFiles
from contracts.hub.selection import Select
from contracts.hub.source import HubSource

#: Files that are read to find out which others are needed: descriptions and indexes.
_MAX_READ_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Snapshot:
    """Files of a repository on this machine.

    Attributes:
        folder: of the snapshot; other rows may have more files in it.
        commit: 40 hex digits.
        repository: `org/name`.
        files: paths in `folder` of those that were asked for.
    """

    folder: Path
    commit: str
    repository: str
    files: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """The files on this machine."""
        return [self.folder / name for name in self.files]


def resolve_commit(repository: str, revision: str | None = None) -> str:
    """Ask the hub which commit a branch or tag is now (`main` by default); a commit is returned as it is.

    Raises:
        HubUnavailable: the hub does not answer, or may not be asked (HF_HUB_OFFLINE) and was not asked before.
        HubRefused: the repository or the revision does not exist, or may not be read.
    """
    if revision is not None and is_commit(revision):
        return revision
    environment = read_environment()
    cache = RepositoryCache(environment.cache, repository)
    if environment.is_offline:
        commit = cache.commit(revision)
        if commit is None:
            raise _offline(repository)
        return commit
    with HubClient(environment) as client:
        commit = client.commit(repository, revision)
    with disk_errors(repository):
        cache.write_commit(revision, commit)
    return commit


def find_snapshot(source: HubSource, select: Select, *, revision: str | None = None) -> Snapshot | None:
    """The files in the cache; None if one is missing or incomplete. Opens no connection.

    Args:
        revision: instead of the source's; without either, what `main` was when it was last asked for.
    """
    cache = RepositoryCache(read_environment().cache, source.repository)
    commit = cache.commit(revision or source.revision)
    if commit is None:
        return None
    tree = cache.tree(commit)
    if tree is None:
        return _find_unlisted(cache, commit, select)

    def read(name: str) -> bytes:
        if not cache.has(commit, name, tree[name]):
            raise _Missing
        return (cache.snapshot(commit) / name).read_bytes()

    try:
        chosen = select(RepositoryFiles(source.repository, tree.keys(), read))
    except (_Missing, HubRefused, OSError):
        return None
    if not all(cache.has(commit, name, tree[name]) for name in chosen):
        return None
    return Snapshot(cache.snapshot(commit), commit, source.repository, tuple(chosen))


class _Missing(HubError):
    """A file that is needed to find out which others are."""


def _find_unlisted(cache: RepositoryCache, commit: str, select: Select) -> Snapshot | None:
    """The files in a snapshot that another program made without keeping the listing: those that are there."""
    folder = cache.snapshot(commit)
    try:
        chosen = select(RepositoryFiles.in_folder(folder))
    except (HubRefused, OSError):
        return None
    return Snapshot(folder, commit, cache.repository, tuple(chosen))


def fetch(
    source: HubSource,
    select: Select,
    *,
    revision: str | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Snapshot:
    """Have all files in the cache, undamaged: what is missing is fetched, what is damaged is fetched again.

    What is wrong with the repository is found before any weight is fetched, and so is a disk that is too full.

    Args:
        revision: instead of the source's; a commit makes no difference between two calls. Default: `main`.
        on_progress: called with bytes that are here and bytes in total, of the files that were missing.
        is_wanted: asked now and then, at most one time-out apart.

    Raises:
        HubUnavailable: the hub, the connection or the disk fails for now; what has arrived stays and is resumed.
        HubRefused: the files cannot be had from this repository.
        Cancelled: `is_wanted` returned False.
    """
    environment = read_environment()
    cache = RepositoryCache(environment.cache, source.repository)
    is_fixed = is_commit(revision or source.revision) or environment.is_offline
    found = find_snapshot(source, select, revision=revision) if is_fixed else None
    if found is not None and find_damage(found, is_wanted=is_wanted):
        found = None
    if found is not None and (environment.is_offline or cache.tree(found.commit) is not None):
        return found
    if environment.is_offline:
        raise _offline(source.repository)
    try:
        with HubClient(environment) as client:
            return _Fetch(environment, cache, client, on_progress, is_wanted).run(source, select, revision)
    except HubUnavailable:
        if found is None:
            raise
        return found  # without the commit's listing nobody can tell, but nothing seems to be missing


def find_damage(snapshot: Snapshot, *, is_wanted: Callable[[], bool] = lambda: True) -> list[str]:
    """Compare files with the digests that they are named by, each once while it does not change.

    Returns:
        Those that differ; they are removed from the cache.

    Raises:
        Cancelled: `is_wanted` returned False.
    """

    def check_wanted() -> None:
        if not is_wanted():
            raise Cancelled(f"{snapshot.repository} is no longer needed")

    cache = RepositoryCache(snapshot.folder.parent.parent.parent, snapshot.repository)
    damaged = []
    for name, path in zip(snapshot.files, snapshot.paths, strict=True):
        digest = path.readlink().name if path.is_symlink() else ""
        if len(digest) not in (40, 64) or cache.is_verified(digest):
            continue
        check_wanted()
        with disk_errors(snapshot.repository):
            if content_digest(path, like=digest, on_chunk=check_wanted) == digest:
                cache.mark_verified(digest)
            else:
                cache.remove(digest)
                damaged.append(name)
    return damaged


class _Fetch:
    """One call of `fetch`."""

    def __init__(
        self,
        environment: HubEnvironment,
        cache: RepositoryCache,
        client: HubClient,
        on_progress: Callable[[int, int], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        self._environment = environment
        self._cache = cache
        self._client = client
        self._on_progress = on_progress
        self._is_wanted = is_wanted

    def run(self, source: HubSource, select: Select, revision: str | None) -> Snapshot:
        revision = revision or source.revision
        commit = str(revision) if is_commit(revision) else self._client.commit(source.repository, revision)
        tree = self._tree(commit)
        chosen = select(
            RepositoryFiles(source.repository, tree.keys(), lambda name: self._read(commit, name, tree))
        )
        snapshot = Snapshot(self._cache.snapshot(commit), commit, source.repository, tuple(chosen))
        there = tuple(name for name in chosen if self._cache.has(commit, name, tree[name]))
        find_damage(Snapshot(snapshot.folder, commit, source.repository, there), is_wanted=self._is_wanted)
        self._download(
            commit, {name: tree[name] for name in chosen if not self._cache.has(commit, name, tree[name])}
        )
        with disk_errors(source.repository):
            self._cache.write_commit(revision, commit)
            self._cache.sweep({file.digest for file in tree.values()})
        return snapshot

    def _tree(self, commit: str) -> Mapping[str, HubFile]:
        tree = self._cache.tree(commit)
        if tree is None:
            tree = self._client.tree(self._cache.repository, commit)
            with disk_errors(self._cache.repository):
                self._cache.write_tree(commit, tree)
        return tree

    def _read(self, commit: str, name: str, tree: Mapping[str, HubFile]) -> bytes:
        file = tree[name]
        if file.size > _MAX_READ_BYTES:
            raise HubRefused(
                f"{name} of {self._cache.repository} is too long to be a description: {file.size} bytes"
            )
        download(self._client, self._cache, commit, name, file, is_wanted=self._is_wanted)
        return (self._cache.snapshot(commit) / name).read_bytes()

    def _download(self, commit: str, missing: Mapping[str, HubFile]) -> None:
        total = sum(file.size for file in missing.values())
        self._check_room(missing.values())
        before = 0

        def report(part: int) -> None:
            self._on_progress(before + part, total)

        for name, file in missing.items():
            download(self._client, self._cache, commit, name, file, on_progress=report, is_wanted=self._is_wanted)
            before += file.size

    def _check_room(self, missing: Iterable[HubFile]) -> None:
        """Refuse to begin a download that the disk has no room for."""
        sizes = {file.digest: file.size for file in missing}
        with disk_errors(self._cache.repository):
            needed = sum(size - min(size, self._cache.incomplete_bytes(digest)) for digest, size in sizes.items())
            free = shutil.disk_usage(_existing(self._environment.cache)).free
        if needed > free:
            raise HubUnavailable(
                f"{self._cache.repository} needs {needed} bytes more in the hub's cache, and its disk has {free} "
                "bytes free: free some space, or set HF_HOME to a folder on a larger disk"
            )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _offline(repository: str) -> HubRefused:
    remedy = "unset HF_HUB_OFFLINE, or fill the cache"
    return HubRefused(f"{repository} is not in the hub's cache, and nothing may be fetched: {remedy}")
