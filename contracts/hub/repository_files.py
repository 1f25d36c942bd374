"""The files of a repository at one commit, on a hub or in a folder of this machine. Chooses none of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.hub.errors import HubRefused


@dataclass(frozen=True)
class RepositoryFiles:
    """Files of a repository at one commit.

    Attributes:
        names: paths of all its files.
        read: returns the content of a small one, fetching it where necessary.
    """

    repository: str
    names: Collection[str]
    read: Callable[[str], bytes]

    @classmethod
    def in_folder(cls, folder: Path) -> RepositoryFiles:
        """A folder on this machine; links to files and folders count as what they lead to."""
        above = tuple(os.path.realpath(parent) for parent in (folder, *folder.parents))
        return cls(folder.name, set(_names_below(str(folder), above)), lambda name: (folder / name).read_bytes())

    def read_json(self, name: str) -> Mapping[str, Any]:
        """The JSON object in a file.

        Raises:
            HubRefused: the file is not in the repository, or is not a JSON object.
        """
        if name not in self.names:
            raise HubRefused(f"{self.repository} has no file {name}")
        try:
            content = json.loads(self.read(name))
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise HubRefused(f"{name} of {self.repository} is not a JSON object")
        return content


def _names_below(folder: str, above: tuple[str, ...], prefix: str = "") -> Iterator[str]:
    """Names of all files at any depth; a link that leads back to a folder above it is not followed.

    Args:
        above: where the folder and those above it really are, its own place first.
        prefix: of the names.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        with suppress(OSError):  # of a link that leads nowhere
            if entry.is_file():
                yield prefix + entry.name
            elif entry.is_dir():
                # Only a link's place must be looked up: a folder has hundreds of files, and each start asks.
                own = f"{above[0].rstrip('/')}/{entry.name}"
                place = os.path.realpath(entry.path) if entry.is_symlink() else own
                if place not in above:
                    yield from _names_below(entry.path, (place, *above), f"{prefix}{entry.name}/")


def weights_below(path: Path) -> list[Path]:
    """All `.safetensors` files of a folder on this machine, in order; of a file, itself."""
    if not path.is_dir():
        return [path]
    return [path / name for name in safetensors_of(RepositoryFiles.in_folder(path).names)]


def safetensors_of(names: Collection[str]) -> list[str]:
    """All weights, in order."""
    return sorted(name for name in names if name.endswith(".safetensors"))
