"""One file from the hub into the cache: locked against other processes, resumed, verified, then named.

A file is visible under its digest only when it is complete and its content has that digest. Knows no selection.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contracts.hub.cache import RepositoryCache, content_digest
from contracts.hub.client import HubClient, HubFile
from contracts.hub.errors import Cancelled, HubUnavailable

#: Interval between two looks at a file that another process downloads.
_POLL_SECONDS = 0.5
#: Interval between two calls of `on_progress` and `is_wanted`: parts come by the thousand in a second.
_LOOK_SECONDS = 0.1
#: Full disks, quotas, and file systems that cannot be written.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def download(
    client: HubClient,
    cache: RepositoryCache,
    commit: str,
    name: str,
    file: HubFile,
    *,
    on_progress: Callable[[int], None] = lambda _: None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Have a file in a snapshot: nothing to do, wait for another process that downloads it, or download it.

    Args:
        on_progress: called with the bytes of this file that are here.
        is_wanted: asked between two parts of it.

    Raises:
        HubUnavailable, HubRefused: it could not be had; what has arrived stays, and the next call resumes it.
        Cancelled: `is_wanted` returned False.
    """
    with disk_errors(cache.repository):
        _Download(client, cache, commit, name, file, on_progress, is_wanted).run()
        cache.link(commit, name, file)
    on_progress(file.size)


@contextmanager
def disk_errors(repository: str) -> Iterator[None]:
    """Turn what the disk of the cache refuses into HubUnavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            message = f"the disk of the hub's cache is full, so {repository} cannot be fetched: free some space"
        else:
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            message = f"the hub's cache cannot be used for {repository} ({reason}): check the folder of HF_HOME"
        raise HubUnavailable(message) from error


@dataclass(frozen=True)
class _Download:
    """One call of `download`."""

    client: HubClient
    cache: RepositoryCache
    commit: str
    name: str
    file: HubFile
    on_progress: Callable[[int], None]
    is_wanted: Callable[[], bool]

    @property
    def _part(self) -> Path:
        return self.cache.incomplete(self.file.digest)

    @property
    def _is_there(self) -> bool:
        blob = self.cache.blob(self.file.digest)
        return blob.exists() and _size(blob) == self.file.size

    def run(self) -> None:
        """Have the file among the blobs."""
        while not self._is_there:
            with self.cache.lock(self.file.digest) as is_ours:
                if is_ours:
                    if not self._is_there:
                        self._fetch()
                    return
            self._look(_size(self._part))
            time.sleep(_POLL_SECONDS)

    def _fetch(self) -> None:
        self._part.parent.mkdir(parents=True, exist_ok=True)
        for is_last in (False, True):
            if not self._part.exists() or _size(self._part) < self.file.size:
                self._append()
            if _size(self._part) == self.file.size and self._is_undamaged():
                self._part.replace(self.cache.blob(self.file.digest))
                self.cache.mark_verified(self.file.digest)
                return
            self._part.unlink()  # longer than it should be, or damaged: once more, from its beginning
            if is_last:
                raise HubUnavailable(f"{self.name} of {self.cache.repository} arrived damaged twice")

    def _append(self) -> None:
        """Add what is missing to the incomplete file; start over where the hub does not send just that."""
        place = (self.cache.repository, self.commit, self.name, _size(self._part))
        with self.client.stream(*place) as (offset, chunks), self._part.open("ab") as output:
            output.truncate(offset)
            done, next_look = offset, 0.0
            for chunk in chunks:
                output.write(chunk)
                done += len(chunk)
                if done > self.file.size:
                    return
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + _LOOK_SECONDS
                    self._look(done)
            output.flush()
            os.fsync(output.fileno())
        if done < self.file.size:
            raise HubUnavailable(f"the connection to the hub broke while {self.cache.repository} was fetched")

    def _is_undamaged(self) -> bool:
        digest = self.file.digest
        return content_digest(self._part, like=digest, on_chunk=lambda: self._look(self.file.size)) == digest

    def _look(self, done: int) -> None:
        self.on_progress(done)
        if not self.is_wanted():
            raise Cancelled(f"{self.cache.repository} is no longer needed")


def _size(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
