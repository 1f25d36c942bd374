"""Numbers of parameters in a checkpoint, from the headers of its safetensors files; loads nothing.

Counts values (parameters and stored buffers), not bytes: the dtype in the file may differ from that on the device.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from contracts.errors import CatalogueError
from contracts.hub.errors import HubRefused
from contracts.hub.folders import folder_files
from contracts.hub.selection import RepositoryFiles
from contracts.weights.header_text import NotSafetensors
from contracts.weights.safetensors import Header, read_header

#: A member of a module list that is the model's direct child: the unit of diffusers' block-level group offloading.
_BLOCK = re.compile(r"[^.]+\.\d+(?=\.)")


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of values of one component.

    Attributes:
        values: in all tensors.
        block_values: in its largest block (a member of a module list, such as `transformer_blocks.7`).
        loose_values: outside of all blocks.
        leaf_values: in its largest single layer.
    """

    values: int
    block_values: int = 0
    loose_values: int = 0
    leaf_values: int = 0

    @classmethod
    def of(cls, tensors: Iterable[tuple[str, int]]) -> ParameterCount:
        """Count a component.

        Args:
            tensors: key and number of values of each.
        """
        blocks: dict[str, int] = defaultdict(int)
        leaves: dict[str, int] = defaultdict(int)
        for key, values in tensors:
            block = _BLOCK.match(key)
            blocks[block[0] if block else ""] += values
            leaves[key.rpartition(".")[0]] += values
        loose = blocks.pop("", 0)
        return cls(
            values=sum(leaves.values()),
            block_values=max(blocks.values(), default=0),
            loose_values=loose,
            leaf_values=max(leaves.values(), default=0),
        )


def count_values(checkpoint: Path, variant: str | None = None) -> dict[str, ParameterCount]:
    """Count each component of a checkpoint.

    Args:
        checkpoint: a folder in diffusers layout, or a single file, which counts as one component `checkpoint`.
        variant: of the files in a folder, such as `fp16`.

    Raises:
        CatalogueError: a file is not a safetensors file, or an index names a missing shard.
    """
    if checkpoint.is_file():
        return {"checkpoint": count_files([checkpoint])}
    files = defaultdict(list)
    for name in _weights_in(checkpoint, variant):
        files[name.partition("/")[0]].append(checkpoint / name)
    return {component: count_files(parts) for component, parts in files.items()}


def count_component(folder: Path, variant: str | None = None) -> ParameterCount:
    """Count the one component whose configuration and weights are in a folder, such as a ControlNet.

    Raises:
        CatalogueError: as `count_values`.
    """
    return count_files(folder / name for name in _weights_in(folder, variant))


def _weights_in(folder: Path, variant: str | None) -> list[str]:
    try:
        names = folder_files(RepositoryFiles.in_folder(folder), variant)
    except HubRefused as error:
        raise CatalogueError(f"{error}; was its download interrupted?") from None
    return sorted(name for name in names if name.endswith(".safetensors"))


def count_files(files: Iterable[Path]) -> ParameterCount:
    """Count one component whose weights are in these files; those that have not changed are not read again.

    Raises:
        CatalogueError: a file is not a safetensors file.
    """
    return _count(tuple((file, file_state(file)) for file in files))


@lru_cache(maxsize=1024)
def _count(files: tuple[tuple[Path, tuple[int, ...]], ...]) -> ParameterCount:
    return ParameterCount.of(tensor for file, _ in files for tensor in _tensors(file))


def file_state(file: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written to."""
    status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def controlnet_parts(path: Path) -> list[Path]:
    """The files of a ControlNet that is given by its weights, or by the index of their shards."""
    parts = [path.with_name("config.json"), path]
    if path.suffix == ".json":
        shards = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        parts += [path.with_name(shard) for shard in sorted(shards)]
    return parts


def read_configs(checkpoint: Path) -> dict[str, Mapping[str, Any]]:
    """Read the configuration of each component of a folder in diffusers layout.

    Raises:
        CatalogueError: a configuration is not a JSON object.
    """
    return {file.parent.name: read_config(file.parent) for file in sorted(checkpoint.glob("*/config.json"))}


def read_config(folder: Path, name: str = "config.json") -> Mapping[str, Any]:
    """Read the configuration of one component, or another description in a folder; empty where it has none.

    Raises:
        CatalogueError: it is not a JSON object.
    """
    file = folder / name
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CatalogueError(f"{file.parent.name}/{file.name}: {error}") from error
    if not isinstance(config, dict):
        raise CatalogueError(f"{file.parent.name}/{file.name} is not a JSON object")
    return config


def _tensors(file: Path) -> Iterator[tuple[str, int]]:
    """Key and number of values of each tensor in a safetensors file."""
    try:
        header = read_header(file)
    except NotSafetensors as error:
        raise CatalogueError(f"{file.name} {error}") from error
    yield from values_of(header)


def values_of(header: Header) -> Iterator[tuple[str, int]]:
    """Key and number of values of each tensor."""
    for key, tensor in header.tensors.items():
        yield key, tensor.values
