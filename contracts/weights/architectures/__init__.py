"""Published architectures as facts: each component's configuration and its number of values, one JSON file each.

They stand in for checkpoints that are not on this machine yet. The configurations are those of the hub's
`config.json` files, without what does not shape the model; `python -m bench.architectures` builds every one on
torch's meta device and holds the numbers against it. Knows nothing of dtypes, devices or budgets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from contracts.weights.parameter_counts import ParameterCount


@dataclass(frozen=True)
class ControlNet:
    """A ControlNet as it was published.

    Attributes:
        sources: hub ids of those that are so.
    """

    sources: tuple[str, ...]
    count: ParameterCount
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """One published architecture.

    Attributes:
        sources: hub ids of checkpoints that have it.
        counts: component -> its values.
        configs: component -> its configuration.
        controlnet: one that is widely used with it, where there is one.
    """

    id: str
    family: str
    sources: tuple[str, ...]
    counts: Mapping[str, ParameterCount]
    configs: Mapping[str, Mapping[str, Any]]
    controlnet: ControlNet | None = None

    @property
    def values(self) -> int:
        """Of all components."""
        return sum(count.values for count in self.counts.values())


@cache
def read_architectures() -> tuple[Architecture, ...]:
    """All architectures that are known, by id."""
    texts = (file.read_text(encoding="utf-8") for file in files(__name__).iterdir() if file.name.endswith(".json"))
    return tuple(sorted(map(_read, texts), key=lambda one: one.id))


def find_architecture(family: str, source: str) -> Architecture | None:
    """The architecture of a checkpoint on a hub: named there, or the only one that its family has."""
    of_family = [one for one in read_architectures() if one.family == family]
    named = [one for one in of_family if source in one.sources]
    candidates = named or of_family
    return candidates[0] if len(candidates) == 1 else None


def find_controlnet(family: str, source: str) -> ControlNet | None:
    """The ControlNet of this hub id; else the largest that is known of its family."""
    of_family = [one.controlnet for one in read_architectures() if one.family == family and one.controlnet]
    named = [one for one in of_family if source in one.sources]
    return max(named or of_family, key=lambda one: one.count.values, default=None)


def _read(text: str) -> Architecture:
    facts = json.loads(text)
    components, control = facts["components"], facts.get("controlnet")
    return Architecture(
        facts["id"],
        facts["family"],
        tuple(facts["sources"]),
        {name: ParameterCount(**component["count"]) for name, component in components.items()},
        {name: component["config"] for name, component in components.items()},
        control and ControlNet(tuple(control["sources"]), ParameterCount(**control["count"]), control["config"]),
    )
