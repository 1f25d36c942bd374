"""What each model family supports, as data: modes, fields, sizes, defaults. Does not import diffusers.

A test compares this table with the signatures of the pipelines (`tests/worker/families/`).
Each row is a file in `family_rows/`; its entries are explained in `family.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType
from typing import cast

from contracts.catalogue import family_rows
from contracts.catalogue.family import (
    Family,
    LongPrompt,
    Mode,
    StepCacheSchedule,
    Task,
    TextEncoder,
    mode_of,
    modes_of,
    task_of,
)

__all__ = [
    "ALL_FAMILIES",
    "FAMILIES",
    "MODE_FIELDS",
    "Family",
    "LongPrompt",
    "Mode",
    "StepCacheSchedule",
    "Task",
    "TextEncoder",
    "mode_of",
    "modes_of",
    "task_of",
]

#: A file that may be for several families is taken for the first one's: those whose layers others have, too.
_FIRST = ("sdxl", "sd3", "flux", "sd15", "z-image")


def _read_rows() -> list[Family]:
    """The rows of `family_rows/`."""
    names = sorted(found.name for found in iter_modules(family_rows.__path__))
    rows = [cast("Family", import_module(f"{family_rows.__name__}.{name}").FAMILY) for name in names]
    return sorted(rows, key=lambda row: _FIRST.index(row.id) if row.id in _FIRST else len(_FIRST))


#: The families that a row of the catalogue may name.
FAMILIES: Mapping[str, Family] = MappingProxyType({row.id: row for row in _read_rows()})
#: The same, and those of their other checkpoints, each under its own id.
ALL_FAMILIES: Mapping[str, Family] = MappingProxyType(
    {row.id: row for family in FAMILIES.values() for row in (family, *family.other_checkpoints.values())}
)

#: Request fields that depend on family and mode: those in any row above. All others are always valid.
MODE_FIELDS: frozenset[str] = frozenset().union(
    *(fields for family in ALL_FAMILIES.values() for fields in family.modes.values())
)
