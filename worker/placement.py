"""The memory plan: what a checkpoint weighs, and how many pixels one pipeline call may paint beside it.

A pure function of files, bytes and settings, without torch: sizes come from the headers of safetensors files,
before anything is loaded. Everything is resident; other placements are not planned yet.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts.catalogue import Catalogue, ModelSpec
from contracts.errors import CatalogueError

#: A header is JSON of a few hundred kilobytes at the most; a longer one is no safetensors file.
_MAX_HEADER_BYTES = 100 * 2**20
_SHARD = re.compile(r"-\d+-of-\d+")


@dataclass(frozen=True)
class Plan:
    """One model on one device.

    Attributes:
        component_bytes: component -> bytes on the device.
        batch_pixels: pixels that one pipeline call may paint; 0 where not even the weights fit.
    """

    model: str
    component_bytes: Mapping[str, int]
    budget_bytes: int
    batch_pixels: int

    @property
    def resident_bytes(self) -> int:
        """Bytes of all components."""
        return sum(self.component_bytes.values())


def plan(model: ModelSpec, components: Mapping[str, int], budget_bytes: int, value_bytes: int) -> Plan:
    """Plan a model with all components resident.

    Args:
        components: component -> number of values (parameters).
        budget_bytes: what the device may hold.
        value_bytes: of the dtype that the worker computes in.
    """
    sizes = {name: values * value_bytes for name, values in components.items()}
    free_bytes = max(0, budget_bytes - sum(sizes.values()))
    pixel_bytes = model.architecture.activation_bytes_per_pixel * value_bytes // 2
    return Plan(model.id, sizes, budget_bytes, free_bytes // pixel_bytes)


def plan_all(catalogue: Catalogue, budget_bytes: int, value_bytes: int) -> dict[str, Plan]:
    """Plans of all models whose weights are on this machine; those still on a hub have none."""
    plans = {}
    for model in catalogue.models:
        place = catalogue.locate(model.source)
        if isinstance(place, Path):
            plans[model.id] = plan(model, count_values(place, model.variant), budget_bytes, value_bytes)
    return plans


def count_values(checkpoint: Path, variant: str | None = None) -> dict[str, int]:
    """Number of values of each component of a checkpoint.

    Args:
        checkpoint: a folder in diffusers layout, or one file, whose only component is called `checkpoint`.
        variant: of the files in the folder, such as `fp16`.

    Raises:
        CatalogueError: a file is no safetensors file.
    """
    if checkpoint.is_file():
        return {"checkpoint": _values_in(checkpoint)}
    counted: dict[str, int] = {}
    for file in sorted(checkpoint.glob("*/*.safetensors")):
        # A folder may hold the same weights in several variants: `model.fp16-00001-of-00002.safetensors`.
        named = _SHARD.sub("", file.name).removesuffix(".safetensors").partition(".")[2]
        if named == (variant or ""):
            counted[file.parent.name] = counted.get(file.parent.name, 0) + _values_in(file)
    return counted


def _values_in(file: Path) -> int:
    """Number of values in a safetensors file, from its header alone."""
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= _MAX_HEADER_BYTES:
            raise CatalogueError(f"{file.name} is no safetensors file")
        try:
            header = json.loads(stream.read(length))
            return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CatalogueError(f"{file.name} is no safetensors file") from error
