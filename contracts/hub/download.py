"""One file from the hub into the cache: locked against other processes, resumed, verified, then named.

A file is visible under its digest only when it is complete and its content has that digest. Knows no selection.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.hub.cache import RepositoryCache, new_digest
from contracts.hub.client import HubClient, HubFile
from contracts.hub.errors import Cancelled, HubUnavailable

#: Interval between two looks at a file that another process downloads.
_POLL_SECONDS = 0.5
#: Interval between two calls of `on_progress` and `is_wanted`: parts come by the thousand in a second.
_LOOK_SECONDS = 0.1
_READ_BYTES = 4 * 2**20
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
        while not _is_there(cache, file):
            with cache.lock(file.digest) as is_ours:
                if is_ours:
                    if not _is_there(cache, file):
                        _download(client, cache, commit, name, file, on_progress, is_wanted)
                    break
            _check_wanted(cache, is_wanted)
            on_progress(_size(cache.incomplete(file.digest)))
            time.sleep(_POLL_SECONDS)
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


def _is_there(cache: RepositoryCache, file: HubFile) -> bool:
    return _size(cache.blob(file.digest)) == file.size and cache.blob(file.digest).exists()


def _download(
    client: HubClient,
    cache: RepositoryCache,
    commit: str,
    name: str,
    file: HubFile,
    on_progress: Callable[[int], None],
    is_wanted: Callable[[], bool],
) -> None:
    part = cache.incomplete(file.digest)
    part.parent.mkdir(parents=True, exist_ok=True)
    if _size(part) > file.size:
        part.unlink()
    for is_last in (False, True):
        if _size(part) < file.size or not part.exists():
            _append(client, cache.repository, commit, name, file, part, on_progress, is_wanted)
        if _size(part) == file.size and _has_digest(part, file, cache, is_wanted):
            part.replace(cache.blob(file.digest))
            cache.mark_verified(file.digest)
            return
        part.unlink()  # longer than it should be, or damaged on the way: once more, from its beginning
        if is_last:
            raise HubUnavailable(f"{name} of {cache.repository} arrived damaged twice")


def _append(
    client: HubClient,
    repository: str,
    commit: str,
    name: str,
    file: HubFile,
    part: Path,
    on_progress: Callable[[int], None],
    is_wanted: Callable[[], bool],
) -> None:
    """Add what is missing to an incomplete file; start over where the hub does not send just that."""
    with client.stream(repository, commit, name, _size(part)) as (offset, chunks), part.open("ab") as output:
        output.truncate(offset)
        done, next_look = offset, 0.0
        for chunk in chunks:
            output.write(chunk)
            done += len(chunk)
            if done > file.size:
                return
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + _LOOK_SECONDS
                on_progress(done)
                if not is_wanted():
                    raise Cancelled(f"{repository} is not wanted any more")
        output.flush()
        os.fsync(output.fileno())
    if done < file.size:
        raise HubUnavailable(f"the connection to the hub broke while {repository} was fetched")


def _has_digest(part: Path, file: HubFile, cache: RepositoryCache, is_wanted: Callable[[], bool]) -> bool:
    digest = new_digest(file.digest, file.size)
    with part.open("rb") as content:
        while chunk := content.read(_READ_BYTES):
            digest.update(chunk)
            _check_wanted(cache, is_wanted)
    return digest.hexdigest() == file.digest


def _check_wanted(cache: RepositoryCache, is_wanted: Callable[[], bool]) -> None:
    if not is_wanted():
        raise Cancelled(f"{cache.repository} is not wanted any more")


def _size(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
