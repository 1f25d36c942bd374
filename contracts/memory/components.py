"""What a model consists of: its components with their roles, bytes and needs, read before anything is loaded.

From the files where they are on this machine, else from the published architecture. Knows nothing of devices,
budgets or requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.errors import CatalogueError
from contracts.memory.activation_formulas import (
    adapted_work,
    encodes_controls,
    encoding_work,
    handed_work,
    held_work,
    work_of,
)
from contracts.memory.activations import NO_WORK, NOTHING_HELD, ActivationCost, Retained
from contracts.requests.parameters import LoraParameters
from contracts.weights.architectures import Architecture, find_architecture, find_controlnet, read_architectures
from contracts.weights.parameter_counts import ParameterCount, count_files, count_values, read_config, read_configs

#: What a size was read from: the files; the published architecture of what is still on a hub; or that of the
#: family's largest, for want of anything better.
Origin = Literal["files", "architecture", "assumed"]


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
        groups: what the groups are: `block`, the members of its module lists, or `leaf`, its single layers.
        value_bytes: of one value, weights and work alike; 0: the model's.
        work: the moments at which it may need most beyond its weights.
        encoding: the same while a VAE encodes pictures.
        adapted: a denoiser's moments more where an adapter acts on it, and where several do.
        handed: what a ControlNet leaves for the denoiser to work with.
        held: what a call keeps beside a denoiser until its images are there.
        tile_side: pixels of a tile, for a VAE.
        encodes_controls: for a ControlNet, whether the VAE encodes its picture.
        origin: what the bytes were read from.
    """

    name: str
    role: Role
    bytes: int
    group_bytes: int = 0
    groups: Literal["block", "leaf"] = "leaf"
    value_bytes: int = 0
    work: tuple[ActivationCost, ...] = ()
    encoding: tuple[ActivationCost, ...] = ()
    adapted: tuple[tuple[ActivationCost, ...], tuple[ActivationCost, ...]] = ((), ())
    handed: ActivationCost = NO_WORK
    held: Retained = NOTHING_HELD
    tile_side: int | None = None
    encodes_controls: bool = False
    origin: Origin = "files"


@dataclass(frozen=True)
class ModelComponents:
    """A model as a plan sees it. It travels as JSON, in the workers' reports.

    Attributes:
        value_bytes: of the dtype that is computed in.
        t5_optional: whether the family can paint without T5.
        origin: what the numbers were read from.
    """

    model: str
    components: tuple[Component, ...]
    value_bytes: int
    t5_optional: bool = False
    origin: Literal["files", "architecture"] = "files"


def read_components(catalogue: Catalogue, model: ModelSpec, value_bytes: int) -> ModelComponents | None:
    """The model's components; None for one that is still on a hub and of no architecture that is known here.

    Args:
        value_bytes: of the dtype that the worker computes in.

    Raises:
        CatalogueError: the source is neither here nor a hub id, or a file cannot be understood.
    """
    place = catalogue.locate(model.source)
    if isinstance(place, str):
        return _by_architecture(model, find_architecture(model.family, place), value_bytes)
    if place.is_file():
        return _of_file(catalogue, model, place, value_bytes)
    return _of_folder(model, place, value_bytes)


def size_controlnet(
    catalogue: Catalogue, id: str, value_bytes: int, fetched: Path | None = None
) -> Component | None:
    """A ControlNet as a component `controlnet:ID`.

    One that is still on a hub is taken to be as its architecture was published, or the largest of its family; None
    where that is not known either.

    Args:
        fetched: where one that came from a hub lies.
    """
    row = catalogue.controlnet(id)
    place = fetched or catalogue.locate(row.source)
    if isinstance(place, str):
        published = find_controlnet(row.family, place)
        if published is None:
            return None
        one = size_component(f"controlnet:{id}", Role.CONTROLNET, published.count, value_bytes, published.config)
        return replace(one, origin="architecture" if place in published.sources else "assumed")
    count = count_files(_weights_in(place))
    return size_component(f"controlnet:{id}", Role.CONTROLNET, count, value_bytes, read_config(place))


def size_adapter(catalogue: Catalogue, id: str, value_bytes: int) -> Component | None:
    """A LoRA as a component `lora:ID`; None where it is not on this machine."""
    place = catalogue.locate(catalogue.lora(id).source)
    if isinstance(place, str):
        return None
    return size_component(f"lora:{id}", Role.ADAPTER, count_files(_weights_in(place)), value_bytes)


def size_uploaded(lora: LoraParameters, value_bytes: int) -> Component | None:
    """A job's LoRA that came over HTTP; None for one of the catalogue's."""
    if lora.values is None:
        return None
    return size_component(f"lora:{lora.name}", Role.ADAPTER, ParameterCount(lora.values), value_bytes)


def size_component(
    name: str, role: Role, count: ParameterCount, value_bytes: int, config: Mapping[str, Any] | None = None
) -> Component:
    """The component that was counted; it streams by blocks where these are small enough to be worth it.

    Raises:
        CatalogueError: its configuration lacks what its class always has.
    """
    config = {} if config is None else config
    by_block = count.loose_values + 2 * count.block_values
    groups: Literal["block", "leaf"] = "block" if by_block <= count.values // 3 else "leaf"
    streamed = by_block if groups == "block" else 2 * count.leaf_values
    try:
        work, encoding = work_of(config), encoding_work(config) if role is Role.VAE else ()
        adapted, handed, held = adapted_work(config), handed_work(config), held_work(config)
    except (KeyError, TypeError, IndexError) as error:
        raise CatalogueError(f"the configuration of {name} lacks {error}") from error
    return Component(
        name=name,
        role=role,
        bytes=count.values * value_bytes,
        group_bytes=min(streamed, count.values) * value_bytes,
        groups=groups,
        value_bytes=value_bytes,
        work=work,
        encoding=encoding,
        adapted=adapted,
        handed=handed,
        held=held,
        tile_side=_tile_side(config) if role is Role.VAE else None,
        encodes_controls=role is Role.CONTROLNET and encodes_controls(config),
    )


#: Half of what the published VAEs were trained on: tiles of the full size would save nothing there.
_TILE_SIDE = 512


def _tile_side(config: Mapping[str, Any]) -> int:
    trained = config.get("sample_size")
    return min(trained, _TILE_SIDE) if isinstance(trained, int) else _TILE_SIDE


def role_of(name: str, config: Mapping[str, Any]) -> Role:
    """A component's role, from its name in the pipeline and its own configuration."""
    if config.get("model_type") == "t5":
        return Role.T5
    if name.startswith("text_encoder"):
        return Role.TEXT_ENCODER
    return Role.VAE if name == "vae" else Role.DENOISER


def _of_folder(model: ModelSpec, folder: Path, value_bytes: int) -> ModelComponents:
    counts, configs = count_values(folder, model.variant), read_configs(folder)
    return _assemble(model, counts, configs, value_bytes, "files")


def _of_file(catalogue: Catalogue, model: ModelSpec, file: Path, value_bytes: int) -> ModelComponents:
    """One file names no components: they are those of its configuration, or of the architecture of its size."""
    folder = None if model.config is None else catalogue.locate(model.config)
    if isinstance(folder, Path) and folder.is_dir():
        return _of_folder(model, folder, value_bytes)
    count = count_files([file])
    sized = [one for one in read_architectures() if one.family == model.family and _is_of_size(one, count.values)]
    whole = _by_architecture(model, sized[0], value_bytes) if len(sized) == 1 else None
    return whole or _assemble(model, {"checkpoint": count}, {}, value_bytes, "files")


def _is_of_size(architecture: Architecture, values: int) -> bool:
    """Whether a file of so many values holds this architecture, with or without its text encoders."""
    parts = {name: count.values for name, count in architecture.counts.items()}
    encoders = sum(size for name, size in parts.items() if name.startswith("text_encoder"))
    sizes = (architecture.values, architecture.values - encoders, architecture.values - encoders - parts["vae"])
    return any(abs(values - size) <= 0.02 * size for size in sizes)


def _by_architecture(
    model: ModelSpec, architecture: Architecture | None, value_bytes: int
) -> ModelComponents | None:
    if architecture is None:
        return None
    return _assemble(model, architecture.counts, architecture.configs, value_bytes, "architecture")


def _assemble(
    model: ModelSpec,
    counts: Mapping[str, ParameterCount],
    configs: Mapping[str, Mapping[str, Any]],
    value_bytes: int,
    origin: Literal["files", "architecture"],
) -> ModelComponents:
    components = tuple(
        size_component(name, role, count, _bytes_of(model, role, config, value_bytes), config)
        for name, role, count, config in (
            (name, role_of(name, configs.get(name, {})), count, configs.get(name, {}))
            for name, count in counts.items()
        )
    )
    return ModelComponents(model.id, components, value_bytes, model.family_spec.t5_optional, origin)


def _bytes_of(model: ModelSpec, role: Role, config: Mapping[str, Any], value_bytes: int) -> int:
    """A VAE that would overflow in float16 works in float32; diffusers takes silence for yes."""
    upcast = role is Role.VAE and model.dtype == "float16" and config.get("force_upcast", True)
    return max(value_bytes, 4) if upcast else value_bytes


def _weights_in(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(place.rglob("*.safetensors"))
