"""What a model consists of: its components with their roles and bytes, read before anything is loaded.

From the files where they are on this machine. Knows nothing of devices, budgets or requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from contracts.catalogue import Catalogue, ModelSpec
from contracts.weights import Count, count_files, count_values, read_configs


class Role(StrEnum):
    """What a component is for, which decides when it is needed."""

    TEXT_ENCODER = "text_encoder"
    T5 = "t5"
    DENOISER = "denoiser"
    VAE = "vae"
    CONTROLNET = "controlnet"
    ADAPTER = "adapter"


@dataclass(frozen=True)
class Component:
    """One set of weights. Bytes are those on the device, in the dtype that is computed in.

    Attributes:
        group_bytes: what it takes on the device while it is streamed: the group in use and the next one.
        groups: what the groups are; diffusers' `block_level` or `leaf_level`.
    """

    name: str
    role: Role
    bytes: int
    group_bytes: int = 0
    groups: Literal["block", "leaf"] = "leaf"

    @classmethod
    def of(cls, name: str, role: Role, count: Count, value_bytes: int) -> Component:
        """The component that was counted; streamed by blocks where these are small enough to be worth it."""
        by_block = count.loose_values + 2 * count.block_values
        groups: Literal["block", "leaf"] = "block" if by_block <= count.values // 3 else "leaf"
        streamed = by_block if groups == "block" else 2 * count.leaf_values
        return cls(name, role, count.values * value_bytes, min(streamed, count.values) * value_bytes, groups)


@dataclass(frozen=True)
class Inventory:
    """A model as a plan sees it.

    Attributes:
        value_bytes: of the dtype that is computed in.
        configs: component -> its configuration; may be empty.
        t5_optional: whether the family can paint without T5.
    """

    model: str
    components: tuple[Component, ...]
    value_bytes: int
    configs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    t5_optional: bool = False


def take_inventory(catalogue: Catalogue, model: ModelSpec, value_bytes: int) -> Inventory | None:
    """The model's components; None where it is not on this machine.

    Args:
        value_bytes: of the dtype that the worker computes in.

    Raises:
        CatalogueError: the source is neither here nor a hub id, or a file is no safetensors file.
    """
    place = catalogue.locate(model.source)
    if not isinstance(place, Path):
        return None
    configs = read_configs(place)
    components = tuple(
        Component.of(name, role_of(name, configs.get(name, {})), count, value_bytes)
        for name, count in count_values(place, model.variant).items()
    )
    return Inventory(model.id, components, value_bytes, configs, model.architecture.t5_optional)


def weigh_controlnet(catalogue: Catalogue, id: str, value_bytes: int) -> Component | None:
    """A ControlNet as a component `controlnet:ID`; None where it is not on this machine."""
    place = catalogue.locate(catalogue.controlnet(id).source)
    if not isinstance(place, Path):
        return None
    files = [place] if place.is_file() else sorted(place.glob("*.safetensors"))
    return Component.of(f"controlnet:{id}", Role.CONTROLNET, count_files(files), value_bytes)


def weigh_adapter(catalogue: Catalogue, id: str, value_bytes: int) -> Component | None:
    """A LoRA as a component `lora:ID`; None where it is not on this machine."""
    place = catalogue.locate(catalogue.lora(id).source)
    if not isinstance(place, Path):
        return None
    files = [place] if place.is_file() else sorted(place.rglob("*.safetensors"))
    return Component.of(f"lora:{id}", Role.ADAPTER, count_files(files), value_bytes)


def role_of(name: str, config: Mapping[str, object]) -> Role:
    """A component's role, from its name in the pipeline and its own configuration."""
    if config.get("model_type") == "t5":
        return Role.T5
    if name.startswith("text_encoder"):
        return Role.TEXT_ENCODER
    return Role.VAE if name == "vae" else Role.DENOISER
