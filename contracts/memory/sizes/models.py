"""The components of a model, known before anything is loaded.

Read from the files where they are on this machine or in the hub's cache, else from the published architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from contracts.catalogue.cached import find_cached, find_file_beside, optional_t5
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.quantizations import QUANTIZATIONS
from contracts.catalogue.rows.models import ModelSpec
from contracts.hub.source import HubSource
from contracts.memory.sizes.component import ModelComponents, Role, role_of, size_component
from contracts.weights.configs import read_configs
from contracts.weights.counts.architectures import Architecture, architectures_of, find_architecture
from contracts.weights.counts.parameter_counts import ParameterCount, count_files, count_values
from contracts.weights.quantized import DENOISERS, quantized
from contracts.weights.text_encoder_files import count_text_encoder

#: The component that a GGUF file holds, and that a Control LoRA changes.
_TRANSFORMER = "transformer"


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
