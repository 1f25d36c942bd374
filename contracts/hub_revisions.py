"""What branches and tags on a hub are for one service: found once, and the same for all of its workers.

A branch moves. If each worker looked for itself, two could make different images of one seed. So the first answer
counts until somebody asks for an update, or a catalogue row names another revision. Fetches no files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, cast

from redis import Redis

from contracts.catalogue.catalogue import AnySpec, Catalogue, ControlNetSpec, LoraSpec, NetworkSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import Unavailable
from contracts.hub.cache import RepositoryCache
from contracts.hub.client import HubClient, is_commit
from contracts.hub.environment import read_environment
from contracts.hub.snapshot import resolve_commit
from contracts.hub.source import HubSource
from contracts.redis import keys
from contracts.redis.connection import redis_errors_are_unavailable

_Row = TypeVar("_Row", ModelSpec, ControlNetSpec, LoraSpec, NetworkSpec, AnySpec)

#: Time for which an API process uses the commits that it has read.
_READ_SECONDS = 10.0


def pin_row(catalogue: Catalogue, row: _Row, commit_of: Callable[[HubSource], str | None]) -> _Row:
    """Return the row with the commits of its sources on a hub; unchanged where it has none, or they are None.

    Raises:
        CatalogueError: a source is unusable.
        Exception: what `commit_of` raises.
    """

    def pin(place: Path | HubSource | None) -> str | None:
        return commit_of(place) if isinstance(place, HubSource) else None

    commit = pin(catalogue.place(row))
    if isinstance(row, ModelSpec):
        config = pin(None if row.config is None else catalogue.locate(row.config))
        beside = {name: pin(catalogue.locate(source)) for name, source in row.files_beside.items()}
        return row.pinned(commit, config, beside)
    return row if commit is None else row.pinned(commit)


class AgreedRows:
    """The rows of a catalogue at the commits that the workers agreed on, for processes that only look them up.

    A branch in this machine's cache may have moved since: another service or a person's download may share it.
    Reads Redis now and then, decides nothing, and never raises Unavailable. Thread-safe.
    """

    def __init__(self, connection: Redis) -> None:
        """`connection` decodes responses."""
        self._revisions = Revisions(connection)
        self._commits: Mapping[str, str] = {}
        self._read_before = float("-inf")
        self._lock = threading.Lock()

    def row(self, catalogue: Catalogue, row: _Row) -> _Row:
        """Return the row with its commits; unchanged where none is agreed on. Raises as `pin_row`."""
        commits = self._current()
        return pin_row(catalogue, row, lambda source: commits.get(_name(source)))

    def catalogue(self, catalogue: Catalogue) -> Catalogue:
        """Return the catalogue with the commits of its models. Raises as `pin_row`."""
        return catalogue.model_copy(
            update={"models": tuple(self.row(catalogue, model) for model in catalogue.models)}
        )

    def _current(self) -> Mapping[str, str]:
        with self._lock:
            if time.monotonic() >= self._read_before:
                self._read_before = time.monotonic() + _READ_SECONDS
                with suppress(Unavailable):  # what was read last still holds
                    self._commits = self._revisions.commits()
            return self._commits


class Revisions:
    """Commits by repository and revision. Thread-safe.

    A process remembers what it has seen, so no job waits for Redis; an update reaches it when it starts again.
    """

    def __init__(self, connection: Redis | None = None) -> None:
        """`connection` decodes responses; None: for a process that shares its answers with no other."""
        self._connection = connection
        self._known: dict[str, str] = {}

    def known(self, source: HubSource) -> str | None:
        """Return the commit that a source's revision is for this service; None where it was never asked for.

        Where Redis knows nothing, what this machine's cache remembers becomes the service's answer.
        Opens no connection to the hub.

        Raises:
            Unavailable: Redis does not answer, or accepts no writes.
        """
        if is_commit(source.revision):
            return source.revision
        name = _name(source)
        if name not in self._known:
            cached = RepositoryCache(read_environment().cache, source.repository).commit(source.revision)
            commit = self._read(name) or (cached and self._share(name, cached))
            if commit is None:
                return None
            self._known[name] = commit
        return self._known[name]

    def resolve(self, source: HubSource) -> str:
        """Return the commit of a source's revision for this service; asks the hub if none has been agreed on.

        Raises:
            HubUnavailable, HubRefused: the hub does not answer, or does not have the repository or the revision.
            Unavailable: as `known`.
        """
        commit = self.known(source)
        if commit is None:
            found = resolve_commit(source.repository, source.revision)
            commit = self._known[_name(source)] = self._share(_name(source), found)
        return commit

    def update(self, source: HubSource) -> str:
        """Ask the hub again and return the commit, which workers that start from now on use. Writes no cache.

        Raises:
            HubUnavailable, HubRefused, Unavailable: as `resolve`.
        """
        with HubClient(read_environment()) as client:
            commit = client.commit(source.repository, source.revision)
        self._known[_name(source)] = commit
        if self._connection is not None:
            with redis_errors_are_unavailable():
                self._connection.hset(keys.HUB_COMMITS, _name(source), commit)
        return commit

    def commits(self) -> dict[str, str]:
        """Return `org/name@revision` → commit, for all that this service has asked for; raises Unavailable."""
        if self._connection is None:
            return dict(self._known)
        with redis_errors_are_unavailable():
            return cast("dict[str, str]", self._connection.hgetall(keys.HUB_COMMITS))

    def _read(self, name: str) -> str | None:
        if self._connection is None:
            return None
        with redis_errors_are_unavailable():
            return cast("str | None", self._connection.hget(keys.HUB_COMMITS, name))

    def _share(self, name: str, commit: str) -> str:
        """Offer an answer to the service; returns the one that counts, which is the first."""
        if self._connection is None:
            return commit
        with redis_errors_are_unavailable():
            self._connection.hsetnx(keys.HUB_COMMITS, name, commit)
            return cast("str | None", self._connection.hget(keys.HUB_COMMITS, name)) or commit


def _name(source: HubSource) -> str:
    return f"{source.repository}@{source.revision or 'main'}"
