"""Which files of a folder on this machine are loaded: of a checkpoint, a ControlNet, or a single component.

The same choice as `selection.py` makes for a hub, but of whatever is there: the row's family is not known.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from contracts.hub.errors import HubRefused
from contracts.hub.repository_files import RepositoryFiles, safetensors_of
from contracts.hub.selection import (
    IMAGE_MODEL_CONFIGS,
    UNUSED_COMPONENTS,
    component_descriptions,
    component_weights,
)

_SHARD = re.compile(r"-\d{5}-of-\d{5}")


def folder_files(files: RepositoryFiles, variant: str | None = None) -> list[str]:
    """The files that loading a folder on this machine reads, of whatever class it is.

    A folder of the cache may hold more: what other rows need of the same repository.

    Raises:
        HubRefused: a shard is missing, or an index cannot be read.
    """
    if "model_index.json" not in files.names and "config.json" in files.names:
        processor = [name for name in IMAGE_MODEL_CONFIGS[1:] if name in files.names]
        return ["config.json", *_any_weights(files, "", variant), *processor]
    parts = _parts(files)
    folders = {name.partition("/")[0] for name in files.names if "/" in name}
    chosen = [name for name in files.names if name == "model_index.json"]
    chosen += [] if chosen else [name for name in safetensors_of(files.names) if "/" not in name]
    for part in sorted(folders.intersection(parts) or folders):
        chosen += [*component_descriptions(files.names, part), *_any_weights(files, part, variant)]
    return chosen


def _parts(files: RepositoryFiles) -> list[str]:
    """Components that a checkpoint names; none where it names none."""
    try:
        index = files.read_json("model_index.json")
    except HubRefused:
        return []
    named = [name for name, entry in index.items() if isinstance(entry, list) and entry[-1:] != [None]]
    return [name for name in named if name not in UNUSED_COMPONENTS]


def _any_weights(files: RepositoryFiles, component: str, variant: str | None) -> list[str]:
    """The weights that would be loaded; all there are where their names are not diffusers'."""
    prefix = f"{component}/" if component else ""
    beside = [
        name for name in safetensors_of(files.names) if name.startswith(prefix) and "/" not in name[len(prefix) :]
    ]
    for wanted in (variant, None):
        found = component_weights(files, component, wanted) or [
            name for name in beside if _variant_of(name) == (wanted or "")
        ]
        if found:
            return found
    return beside


def _variant_of(name: str) -> str:
    """`fp16` of `model.fp16-00001-of-00002.safetensors`; empty where there is none."""
    return _SHARD.sub("", PurePosixPath(name).name).removesuffix(".safetensors").partition(".")[2]
