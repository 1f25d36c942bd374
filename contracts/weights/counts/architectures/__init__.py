"""Published architectures: configuration and number of values of each component, one JSON file an architecture.

Used for checkpoints that have not been downloaded yet. The configurations are those of the hub's `config.json`
files, or of what `configured_from` names, without entries that do not shape the model. A test builds every
component on torch's meta device and compares the numbers. Knows nothing of dtypes, devices or budgets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from contracts.catalogue.families import FAMILIES
from contracts.catalogue.rows.models import ModelSpec
from contracts.weights.class_checkpoints import side_of
from contracts.weights.counts.parameter_counts import LinearWeights, ParameterCount, Sums

#: Architectures of a family whose sizes are at least this alike can stand for one another.
_SAME_SIZE = 0.99


@dataclass(frozen=True)
class ControlNet:
    """A published ControlNet or T2I-Adapter.

    Attributes:
        sources: hub ids of those that it describes.
    """

    sources: tuple[str, ...]
    count: ParameterCount
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """One published architecture.

    Attributes:
        sources: hub ids of the checkpoints that it describes.
        counts: component -> its number of values.
        configs: component -> its configuration.
        controlnet, t2i_adapter, union: a widely used one for it; None where there is none.
        pipeline: class that their `model_index.json` names, where they are not the family's usual checkpoints.
        configured_from: where the configurations are from, if not from the hub's files; Markdown.
    """

    id: str
    family: str
    sources: tuple[str, ...]
    counts: Mapping[str, ParameterCount]
    configs: Mapping[str, Mapping[str, Any]]
    controlnet: ControlNet | None = None
    t2i_adapter: ControlNet | None = None
    union: ControlNet | None = None
    pipeline: str | None = None
    configured_from: str = ""

    @property
    def values(self) -> int:
        """Number of values of all components."""
        return sum(count.values for count in self.counts.values())


@cache
def read_architectures() -> tuple[Architecture, ...]:
    """All known architectures, sorted by id."""
    texts = (file.read_text(encoding="utf-8") for file in files(__name__).iterdir() if file.name.endswith(".json"))
    return tuple(sorted(map(_read, texts), key=lambda architecture: architecture.id))


def row_of(published: Architecture, quantization: str | None = None) -> ModelSpec:
    """A row of a catalogue that names the architecture where it is published.

    Args:
        quantization: of its denoiser, as in a row.
    """
    is_fixed = FAMILIES[published.family].fixed_size
    side = side_of(published.configs["transformer"], published.configs["vae"]) if is_fixed else None
    return ModelSpec(
        id=published.id,
        family=published.family,
        source=published.sources[0],
        pipeline=published.pipeline,
        quantization=quantization,
        defaults={} if side is None else {"width": side, "height": side},
    )


def architectures_of(family: str, pipeline: str | None = None) -> list[Architecture]:
    """Those of a family's checkpoints of this class; where none are known, those of its usual ones."""
    of_family = [architecture for architecture in read_architectures() if architecture.family == family]
    of_class = [architecture for architecture in of_family if architecture.pipeline == pipeline]
    return of_class or [architecture for architecture in of_family if architecture.pipeline is None]


def find_architecture(family: str, source: str, pipeline: str | None = None) -> Architecture | None:
    """The architecture of a checkpoint on a hub: the one that names it, else that of its family and class.

    Where there are several, the largest if all have nearly the same size; else None.
    """
    named = [one for one in read_architectures() if one.family == family and source in one.sources]
    found = sorted(named or architectures_of(family, pipeline), key=lambda architecture: architecture.values)
    return found[-1] if found and found[0].values > _SAME_SIZE * found[-1].values else None


def find_controlnet(family: str, source: str, class_name: str) -> ControlNet | None:
    """The ControlNet or T2I-Adapter of this class with this hub id, else the largest known one of its family."""
    known = (architecture for architecture in read_architectures() if architecture.family == family)
    nets = (net for one in known for net in (one.controlnet, one.t2i_adapter, one.union))
    of_family = [net for net in nets if net is not None and net.config["_class_name"] == class_name]
    named = [controlnet for controlnet in of_family if source in controlnet.sources]
    return max(named or of_family, key=lambda controlnet: controlnet.count.values, default=None)


def _read(text: str) -> Architecture:
    entries = json.loads(text)
    components = entries["components"]
    return Architecture(
        entries["id"],
        entries["family"],
        tuple(entries["sources"]),
        {name: _read_count(component) for name, component in components.items()},
        {name: component["config"] for name, component in components.items()},
        _read_net(entries.get("controlnet")),
        _read_net(entries.get("t2i_adapter")),
        _read_net(entries.get("union")),
        entries.get("pipeline"),
        entries.get("configured_from", ""),
    )


def _read_count(component: Mapping[str, Any]) -> ParameterCount:
    """The count of a component, of a denoiser with what can be quantized of it."""
    linear = {name: Sums(*sums) for name, sums in component.get("linear", {}).items()}
    return ParameterCount(**component["count"], linear=LinearWeights(**linear))


def _read_net(entry: Mapping[str, Any] | None) -> ControlNet | None:
    if entry is None:
        return None
    return ControlNet(tuple(entry["sources"]), ParameterCount(**entry["count"]), entry["config"])
