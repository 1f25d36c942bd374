"""Whether what a row needs of a repository can be fetched, asked before anything depends on it.

Keeps nothing on disk.
"""

from __future__ import annotations

from dataclasses import replace

from contracts.hub.client import HubClient
from contracts.hub.environment import read_environment
from contracts.hub.remote import RemoteRepository
from contracts.hub.selection import Select
from contracts.hub.snapshot import find_snapshot
from contracts.hub.source import HubSource

#: For each request; a hub that is slower than that is asked again when its files are needed.
_TIMEOUT_SECONDS = 5.0


def check_access(source: HubSource, select: Select) -> None:
    """Check that the repository and revision exist, have the files, and may be read with this token.

    Nothing is asked where the files are in the cache, or where HF_HUB_OFFLINE is set.

    Raises:
        HubRefused: they do not exist, or may not be read.
        HubUnavailable: the hub does not answer.
    """
    environment = read_environment()
    if environment.is_offline or find_snapshot(source, select) is not None:
        return
    timeout_seconds = min(environment.timeout_seconds, _TIMEOUT_SECONDS)
    with HubClient(replace(environment, timeout_seconds=timeout_seconds)) as client:
        repository = RemoteRepository(client, source)
        chosen = select(repository.files)
        # Of a gated repository, everybody may read all but the files.
        repository.open(chosen[0]).read(1)
