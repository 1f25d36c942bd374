"""Configurations of components, `config.json` in their folders, and what tells that a file is still the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from contracts.errors import CatalogueError


def read_configs(checkpoint: Path) -> dict[str, Mapping[str, Any]]:
    """Read the configuration of each component of a folder in diffusers layout.

    Raises:
        CatalogueError: a configuration is not a JSON object.
    """
    return {file.parent.name: read_config(file.parent) for file in sorted(checkpoint.glob("*/config.json"))}


def read_config(folder: Path, name: str = "config.json") -> Mapping[str, Any]:
    """Read the configuration of one component, or another description in a folder; empty where it has none.

    A file that has not changed is not read again: a start of a process asks for each several times.

    Raises:
        CatalogueError: it is not a JSON object.
    """
    file = folder / name
    return dict(_parse_config(file, file_state(file))) if file.is_file() else {}


@lru_cache(maxsize=1024)
def _parse_config(file: Path, state: tuple[int, ...]) -> Mapping[str, Any]:
    del state  # a part of what the answer is remembered by
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CatalogueError(f"{file.parent.name}/{file.name}: {error}") from error
    if not isinstance(config, dict):
        raise CatalogueError(f"{file.parent.name}/{file.name} is not a JSON object")
    return config


def file_state(file: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written to."""
    status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
