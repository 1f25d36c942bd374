"""The files of a repository at one commit, on a hub or in a folder of this machine. Chooses none of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
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
        names = {file.relative_to(folder).as_posix() for file in _files_below(folder) if file.is_file()}
        return cls(folder.name, names, lambda name: (folder / name).read_bytes())

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


def _files_below(folder: Path) -> Iterator[Path]:
    """All files at any depth; a link that leads back to a folder above it is not followed."""
    for root, folders, files in os.walk(folder, followlinks=True):
        here = Path(root)
        above = {os.path.realpath(parent) for parent in (here, *here.parents)}
        folders[:] = [name for name in folders if os.path.realpath(here / name) not in above]
        yield from (here / name for name in files)


def weights_below(path: Path) -> list[Path]:
    """All `.safetensors` files of a folder on this machine, in order; of a file, itself."""
    if not path.is_dir():
        return [path]
    return [path / name for name in safetensors_of(RepositoryFiles.in_folder(path).names)]


def safetensors_of(names: Collection[str]) -> list[str]:
    """All weights, in order."""
    return sorted(name for name in names if name.endswith(".safetensors"))
