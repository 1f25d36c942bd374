"""A repository read where it is, before it is fetched: small files whole, of others only their beginning.

Keeps nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from contracts.hub.client import HubClient, HubFile, is_commit
from contracts.hub.environment import read_environment
from contracts.hub.errors import HubRefused, HubUnavailable
from contracts.hub.repository_files import RepositoryFiles
from contracts.hub.source import HubSource

#: Files that are read whole: descriptions and indexes.
_MAX_FILE_BYTES = 16 * 2**20
#: What one request asks for at least: headers of safetensors files are seldom longer.
_BLOCK_BYTES = 2**16


class RemoteRepository:
    """One commit of a repository on the hub."""

    def __init__(self, client: HubClient, source: HubSource) -> None:
        """Ask the hub for the commit and for its files. Raises HubUnavailable, HubRefused."""
        self._client = client
        self._repository = source.repository
        self._commit = (
            str(source.revision)
            if is_commit(source.revision)
            else client.commit(source.repository, source.revision)
        )
        self._tree = client.tree(source.repository, self._commit)
        self._read: dict[str, bytes] = {}

    @property
    def files(self) -> RepositoryFiles:
        """Its files, for a selection; what is read is remembered."""
        return RepositoryFiles(self._repository, self._tree.keys(), self.read)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._tree[name].size

    def read(self, name: str) -> bytes:
        """The content of a small file.

        Raises:
            HubUnavailable: the hub does not answer, or not with the whole file.
            HubRefused: it has more than 16 MiB, or may not be read.
        """
        if name not in self._read:
            if self.size(name) > _MAX_FILE_BYTES:
                raise HubRefused(f"{name} of {self._repository} is too long for a description")
            self._read[name] = self.open(name).read(self.size(name))
        return self._read[name]

    def open(self, name: str) -> RemoteFile:
        """A file, to be read from its beginning."""
        return RemoteFile(self._client, self._repository, self._commit, name, self._tree[name])


class RemoteFile:
    """The beginning of a file on the hub, asked for in ranges as it is read."""

    def __init__(self, client: HubClient, repository: str, commit: str, name: str, file: HubFile) -> None:
        self._client = client
        self._place = (repository, commit, name)
        self._size = file.size
        self._begin = 0
        self._ahead = b""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes; fewer than `size` only at the end.

        Raises:
            HubUnavailable, HubRefused: as every request to the hub.
        """
        size = min(size, self._size - self._begin)
        if len(self._ahead) < size:
            begin = self._begin + len(self._ahead)
            end = min(max(self._begin + size, begin + _BLOCK_BYTES), self._size)
            self._ahead += self._range(begin, end)
        result, self._ahead = self._ahead[:size], self._ahead[size:]
        self._begin += len(result)
        return result

    def _range(self, begin: int, end: int) -> bytes:
        content = bytearray()
        with self._client.stream(*self._place, begin, end) as (offset, chunks):
            for chunk in chunks:
                content += chunk
                if offset + len(content) >= end:  # the hub may send the whole file
                    break
        content = content[begin - offset : end - offset]
        if len(content) < end - begin:
            raise HubUnavailable(f"the connection to the hub broke while {self._place[0]} was read")
        return bytes(content)


@contextmanager
def reading(source: HubSource) -> Iterator[RemoteRepository]:
    """A repository on the hub, while the block runs.

    Raises:
        HubUnavailable, HubRefused: as every request to the hub; HubRefused also where HF_HUB_OFFLINE is set.
    """
    environment = read_environment()
    if environment.is_offline:
        raise HubRefused(f"HF_HUB_OFFLINE forbids asking the hub about {source.repository}")
    with HubClient(environment) as client:
        yield RemoteRepository(client, source)
