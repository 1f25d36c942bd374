"""Whether a repository can be fetched, asked with three small requests before anything depends on it.

Fetches and stores nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from contracts.hub.cache import RepositoryCache
from contracts.hub.client import HubClient
from contracts.hub.environment import HubEnvironment, read_environment
from contracts.hub.errors import HubRefused
from contracts.hub.source import HubSource

#: For each request; a hub that is slower than that is asked again when its files are needed.
_TIMEOUT_SECONDS = 5.0


def check_access(source: HubSource) -> None:
    """Check that the repository, revision and file exist and may be read with this token.

    Nothing is asked where files of it are in the cache, which could be read then, or where HF_HUB_OFFLINE is set.

    Raises:
        HubRefused: they do not exist, or may not be read.
        HubUnavailable: the hub does not answer.
    """
    environment = read_environment()
    if environment.is_offline or _is_cached(environment, source):
        return
    timeout_seconds = min(environment.timeout_seconds, _TIMEOUT_SECONDS)
    with HubClient(replace(environment, timeout_seconds=timeout_seconds)) as client:
        commit = client.commit(source.repository, source.revision)
        names = client.tree(source.repository, commit)
        name = _probe(source, names)
        if name is None:
            raise HubRefused(f"{source.repository} has no .safetensors file and no model_index.json")
        # Of a gated repository, everybody may read all but the files.
        with client.stream(source.repository, commit, name, 0, 1):
            pass


def _is_cached(environment: HubEnvironment, source: HubSource) -> bool:
    cache = RepositoryCache(environment.cache, source.repository)
    commit = cache.commit(source.revision)
    folder = None if commit is None else cache.snapshot(commit)
    if folder is None or not folder.is_dir():
        return False
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    return _probe(source, names) in names


def _probe(source: HubSource, names: Collection[str]) -> str | None:
    """The file that tells whether all can be read."""
    if source.file is not None:
        return source.file
    descriptions = (name for name in ("model_index.json", "config.json") if name in names)
    return next(descriptions, None) or next((name for name in names if name.endswith(".safetensors")), None)
