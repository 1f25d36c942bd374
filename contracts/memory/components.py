"""What a model consists of: its components with roles, sizes and activations, known before anything is loaded.

Read from the files where they are on this machine or in the hub's cache, else from the published architecture.
Knows nothing of devices, budgets or requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from contracts.catalogue.cached import find_cached, find_file_beside, optional_t5
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.quantizations import QUANTIZATIONS
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.hub.source import HubSource
from contracts.memory.activation_tables import class_of, find_activations
from contracts.memory.activations import UNKNOWN, Activations
from contracts.weights.counts.architectures import Architecture, architectures_of, find_architecture
from contracts.weights.counts.parameter_counts import (
    ParameterCount,
    count_files,
    count_values,
    read_configs,
)
from contracts.weights.quantized import DENOISERS, quantized
from contracts.weights.text_encoder_files import count_text_encoder

#: What a size was read from: the files on this machine; their headers on the hub; the published architecture of a
#: checkpoint that is still on a hub; or, for an unknown ControlNet on a hub, the largest one of its family.
Origin = Literal["files", "hub", "architecture", "assumed"]


class Role(StrEnum):
    """Purpose of a component, which decides in which stage it is needed."""

    TEXT_ENCODER = "text_encoder"
    T5 = "t5"
    DENOISER = "denoiser"
    VAE = "vae"
    PREVIEW_VAE = "preview_vae"
    CONTROLNET = "controlnet"
    ADAPTER = "adapter"
    LORA_SLOTS = "lora_slots"
    IMAGE_ENCODER = "image_encoder"


@dataclass(frozen=True)
class Component:
    """One set of weights, with bytes in the dtype it is computed in.

    Attributes:
        group_bytes: on the device at one time while it is streamed: the group at work and the next one.
        groups: what it is streamed by: `block`, the members of its module lists, or `leaf`, its single layers.
        value_bytes: of one value, weights and activations alike; 0: the model's.
        tile_side: pixels of a tile, for a VAE.
        origin: what the bytes were read from.
        shares_layers: for a ControlNet, whether it runs layers of the denoiser, which cannot be streamed then.
        prompt_tokens: for an image encoder, those by which it makes the prompt's embedding longer.
        packed_bytes: of its weights that are packed, which no other dtype changes.
        unpacking_bytes: what its largest layer takes while it computes, where its weights are packed; else 0.
        copies_output: whether its layers have their results in memory twice for a moment, as adapters have.
        linear_widths: of a denoiser, inputs and outputs of all its linear layers; 0 where they are not known.
    """

    name: str
    role: Role
    bytes: int
    group_bytes: int = 0
    groups: Literal["block", "leaf"] = "leaf"
    value_bytes: int = 0
    activations: Activations = UNKNOWN
    tile_side: int | None = None
    origin: Origin = "files"
    shares_layers: bool = False
    prompt_tokens: int = 0
    packed_bytes: int = 0
    unpacking_bytes: int = 0
    copies_output: bool = False
    linear_widths: int = 0

    @property
    def is_packed(self) -> bool:
        """Whether its weights are quantized, and unpacked layer by layer."""
        return self.unpacking_bytes > 0


@dataclass(frozen=True)
class ModelComponents:
    """A model as the planner sees it. Workers send it as JSON in their reports.

    Attributes:
        model: its id.
        value_bytes: of one value in the dtype it is computed in.
        t5_optional: whether the family works without T5.
        origin: what the sizes were read from.
    """

    model: str
    components: tuple[Component, ...]
    value_bytes: int
    t5_optional: bool = False
    origin: Literal["files", "hub", "architecture"] = "files"


def read_components(catalogue: Catalogue, model: ModelSpec, value_bytes: int) -> ModelComponents | None:
    """The model's components; None for one that is still on a hub and of no known architecture.

    Args:
        value_bytes: of one value in the dtype the worker computes in.

    Raises:
        CatalogueError: the source is neither on this machine nor a hub id, or a file cannot be read.
    """
    source = catalogue.place(model)
    if isinstance(source, HubSource):
        cached = find_cached(catalogue, model)
        if cached is None:
            known = find_architecture(model.family, source.repository, model.pipeline)
            # That of a family's usual checkpoints says nothing of its second models.
            architecture = known if known is None or known.pipeline == model.pipeline else None
            return _of_architecture(
                model, architecture if model.family_spec.runs_later_only else known, value_bytes
            )
        source = cached.folder if source.file is None else cached.paths[0]
    if source.is_file():
        return components_of_file(catalogue, model, count_files([source]), value_bytes, "files")
    counts = {**count_values(source, model.variant), **count_text_encoders(catalogue, model)}
    return assemble(model, counts, read_configs(source), value_bytes, "files")


def count_text_encoders(catalogue: Catalogue, model: ModelSpec) -> dict[str, ParameterCount]:
    """Those of the row's `text_encoders` that are on this machine or in the hub's cache."""
    found = {}
    for name, source in model.text_encoders.items():
        file = find_file_beside(catalogue, source)
        if file is not None:
            found[name] = count_text_encoder(file)
    return found


def size_component(
    name: str, role: Role, count: ParameterCount, value_bytes: int, config: Mapping[str, Any] | None = None
) -> Component:
    """A component of this size; it is streamed by blocks where that saves two thirds of its bytes.

    Raises:
        CatalogueError: the configuration lacks what its class always has.
    """
    config = {} if config is None else config
    packed = count.packed
    size = count.values * value_bytes + packed.bytes
    by_block = (count.loose_values + 2 * count.block_values) * value_bytes
    by_block += packed.loose_bytes + 2 * packed.block_bytes
    groups: Literal["block", "leaf"] = "block" if by_block <= size // 3 else "leaf"
    by_leaf = 2 * max(count.leaf_values * value_bytes, packed.leaf_bytes)
    try:
        activations = find_activations(config)
    except (KeyError, TypeError, IndexError) as error:
        raise CatalogueError(f"the configuration of {name} lacks {error}") from error
    return Component(
        name=name,
        role=role,
        bytes=size,
        group_bytes=min(by_block if groups == "block" else by_leaf, size),
        groups=groups,
        value_bytes=value_bytes,
        activations=activations,
        tile_side=_tile_side(config) if role is Role.VAE else None,
        shares_layers=class_of(config) in _SHARING,
        packed_bytes=packed.bytes,
        # Unpacked values may be in 16 bits first, and beside that in the dtype of the model.
        unpacking_bytes=max(packed.unpacking_bytes, packed.layer_values * (packed.copy_bytes + value_bytes)),
        copies_output=packed.copies_output,
        linear_widths=sum((count.linear.rows.total, count.linear.columns.total)) if role is Role.DENOISER else 0,
    )


#: ControlNets that are not whole without their denoiser.
_SHARING = frozenset({"ZImageControlNetModel"})
#: The component that a GGUF file holds, and that a Control LoRA changes.
_TRANSFORMER = "transformer"


#: Half of what the published VAEs were trained on: tiles of the full size would save nothing there.
_TILE_SIDE = 512


def _tile_side(config: Mapping[str, Any]) -> int:
    trained = config.get("sample_size")
    return min(trained, _TILE_SIDE) if isinstance(trained, int) else _TILE_SIDE


def role_of(name: str, config: Mapping[str, Any]) -> Role:
    """A component's role, from its name in the pipeline and its own configuration."""
    if config.get("model_type") in ("t5", "mt5"):
        return Role.T5
    if name.startswith("text_encoder"):
        return Role.TEXT_ENCODER
    return Role.VAE if name == "vae" else Role.DENOISER


def components_of_file(
    catalogue: Catalogue,
    model: ModelSpec,
    count: ParameterCount,
    value_bytes: int,
    origin: Literal["files", "hub"],
) -> ModelComponents:
    """The components of a single file, which does not name them: those of its configuration or of its size.

    Where neither is known, the file counts as one component, `checkpoint`. A GGUF file takes the place of the
    transformer of its configuration.
    """
    folder = None if model.config is None else catalogue.locate(model.config)
    own = {_TRANSFORMER: count} if model.is_gguf else {}
    own |= count_text_encoders(catalogue, model)
    if isinstance(folder, Path) and folder.is_dir():
        counts = {**count_values(folder, model.variant), **own}
        return assemble(model, counts, read_configs(folder), value_bytes, origin)
    if own and isinstance(folder, HubSource):
        published = find_architecture(model.family, folder.repository)
        if published is not None:
            return assemble(model, {**published.counts, **own}, published.configs, value_bytes, origin)
    same_size = [
        architecture
        for architecture in architectures_of(model.family, model.pipeline)
        if _is_of_size(architecture, count.values)
    ]
    whole = _of_architecture(model, same_size[0], value_bytes) if len(same_size) == 1 else None
    return whole or assemble(model, {"checkpoint": count}, {}, value_bytes, origin)


def _is_of_size(architecture: Architecture, values: int) -> bool:
    """Whether a file of this many values holds the architecture, with or without its text encoders and VAE."""
    sizes = {name: count.values for name, count in architecture.counts.items()}
    encoders = sum(size for name, size in sizes.items() if name.startswith("text_encoder"))
    without_encoders = architecture.values - encoders
    wholes = (architecture.values, without_encoders, without_encoders - sizes.get("vae", 0))
    return any(abs(values - size) <= 0.02 * size for size in wholes)


def _of_architecture(
    model: ModelSpec, architecture: Architecture | None, value_bytes: int
) -> ModelComponents | None:
    if architecture is None:
        return None
    return assemble(model, architecture.counts, architecture.configs, value_bytes, "architecture")


def assemble(
    model: ModelSpec,
    counts: Mapping[str, ParameterCount],
    configs: Mapping[str, Mapping[str, Any]],
    value_bytes: int,
    origin: Literal["files", "hub", "architecture"],
) -> ModelComponents:
    """The components with these numbers of values and configurations.

    A T5 of which only the configuration is here is one, too, of no bytes: plans say that it is skipped.
    """
    counts = {name: count for name, count in counts.items() if name not in model.family_spec.unused}
    if model.control_lora is not None:
        counts, configs = _with_control_lora(counts, configs)
    for name, kind in {**dict.fromkeys(DENOISERS, model.quantization), **model.text_encoder_quantization}.items():
        if kind is not None and kind in QUANTIZATIONS and name in counts and not counts[name].packed.bytes:
            counts = {**counts, name: quantized(counts[name], kind)}
    components = []
    absent = [name for name in optional_t5(model.family_spec) if name in configs and name not in counts]
    for name, count in [*counts.items(), *((name, ParameterCount.of(())) for name in absent)]:
        config = configs.get(name, {})
        role = role_of(name, config)
        components.append(
            size_component(name, role, count, _value_bytes(model, role, config, value_bytes), config)
        )
    return ModelComponents(model.id, tuple(components), value_bytes, model.family_spec.t5_optional, origin)


def _with_control_lora(
    counts: Mapping[str, ParameterCount], configs: Mapping[str, Mapping[str, Any]]
) -> tuple[Mapping[str, ParameterCount], Mapping[str, Mapping[str, Any]]]:
    """The same with the channels of a control image in the transformer's first layer."""
    config, count = configs.get(_TRANSFORMER, {}), counts.get(_TRANSFORMER)
    if count is None or "in_channels" not in config:
        return counts, configs
    inputs = config["in_channels"]
    outputs = config["num_attention_heads"] * config["attention_head_dim"]
    wider = {**config, "in_channels": 2 * inputs, "out_channels": config.get("out_channels") or inputs}
    return (
        {**counts, _TRANSFORMER: count.with_twice_the_inputs(inputs, outputs)},
        {**configs, _TRANSFORMER: wider},
    )


def _value_bytes(model: ModelSpec, role: Role, config: Mapping[str, Any], value_bytes: int) -> int:
    """Four for a VAE that would overflow in float16; diffusers' default of `force_upcast` is true."""
    upcast = role is Role.VAE and model.dtype == "float16" and config.get("force_upcast", True)
    return max(value_bytes, 4) if upcast else value_bytes
