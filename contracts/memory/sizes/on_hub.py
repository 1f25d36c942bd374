"""Sizes of what is still on a hub, from the headers of its files there: a few kilobytes of each.

Only these functions ask a hub. What is on this machine or in the cache is `components.py`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from contracts.catalogue.cached import AnySpec, file_beside, select_files
from contracts.catalogue.catalogue import (
    Catalogue,
    ControlNetSpec,
    IpAdapterSpec,
    LoraSpec,
    TextualInversionSpec,
    VaeSpec,
)
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.hub.remote import RemoteRepository, reading
from contracts.hub.source import CHECKPOINT_SUFFIXES, GGUF, HubSource
from contracts.memory.sizes.component import Component, ModelComponents, Role, size_component
from contracts.memory.sizes.extras import published_vae
from contracts.memory.sizes.models import assemble, components_of_file, count_text_encoders
from contracts.weights.checkpoint_files import AnyTensor
from contracts.weights.counts.parameter_counts import ParameterCount, count_tensors
from contracts.weights.formats.gguf import read_gguf_of
from contracts.weights.formats.header_text import UnreadableWeights
from contracts.weights.formats.safetensors import read_header_of
from contracts.weights.quantized_files import tensors_of


@dataclass(frozen=True)
class _Weights:
    """Component ("" for files at the top) -> its number of values, and its configuration."""

    counts: Mapping[str, ParameterCount]
    configs: Mapping[str, Mapping[str, Any]]

    @property
    def only(self) -> tuple[ParameterCount, Mapping[str, Any]]:
        """The one component of a single file, a ControlNet or a LoRA."""
        ((folder, count),) = self.counts.items()
        return count, self.configs.get(folder, {})


def read_hub_components(
    catalogue: Catalogue, model: ModelSpec, value_bytes: int, class_name: str | None = None
) -> ModelComponents | None:
    """A model's components; None for one that is on this machine.

    Args:
        class_name: of the pipeline that its family needs; None: any.

    Raises:
        HubUnavailable, HubRefused: as every request to a hub.
        CatalogueError: a file is not a safetensors file, or a configuration lacks something.
    """
    source = catalogue.place(model)
    if not isinstance(source, HubSource):
        return None
    weights = _read(source, model, class_name)
    if source.file is not None:
        return components_of_file(catalogue, model, weights.only[0], value_bytes, "hub")
    counts = {**weights.counts, **_count_text_encoders(catalogue, model)}
    return assemble(model, counts, weights.configs, value_bytes, "hub")


def _count_text_encoders(catalogue: Catalogue, model: ModelSpec) -> dict[str, ParameterCount]:
    """Those of the row's `text_encoders`, here or on a hub."""
    counts = count_text_encoders(catalogue, model)
    for name, source in model.text_encoders.items():
        place = catalogue.locate(source)
        if name not in counts and isinstance(place, HubSource):
            with reading(place) as repository:
                counts[name] = _count(repository, file_beside(place)(repository.files))
    return counts


def size_hub_extra(
    catalogue: Catalogue, row: ControlNetSpec | VaeSpec | LoraSpec, value_bytes: int, class_name: str | None = None
) -> Component | None:
    """A ControlNet, VAE or LoRA as a component; None for one that is on this machine.

    Raises:
        HubUnavailable, HubRefused, CatalogueError: as `read_hub_components`.
    """
    source = catalogue.place(row)
    if not isinstance(source, HubSource) or isinstance(row, IpAdapterSpec | TextualInversionSpec):
        return None  # what these put on the device is far less than their files, or nothing
    count, config = _read(source, row, class_name).only
    if isinstance(row, ControlNetSpec) and not config:
        return None  # it may be a control-LoRA, which is smaller than the ControlNet that it becomes
    if isinstance(row, LoraSpec):  # not streamed, so that its layers do not matter
        component = size_component(f"lora:{row.id}", Role.ADAPTER, ParameterCount(count.values), value_bytes)
    elif isinstance(row, VaeSpec):
        component = size_component(
            f"vae:{row.id}", Role.VAE, count, value_bytes, config or published_vae(row.family)
        )
    else:
        component = size_component(f"controlnet:{row.id}", Role.CONTROLNET, count, value_bytes, config)
    return replace(component, origin="hub")


def _read(source: HubSource, row: AnySpec, class_name: str | None) -> _Weights:
    with reading(source) as repository:
        chosen = select_files(row, source, class_name)(repository.files)
        files, configs = defaultdict(list), {}
        for name in chosen:
            folder = PurePosixPath(name).parent.name
            if name.endswith(CHECKPOINT_SUFFIXES):
                files[folder].append(name)
            elif PurePosixPath(name).name == "config.json":
                configs[folder] = repository.files.read_json(name)
        return _Weights({folder: _count(repository, names) for folder, names in files.items()}, configs)


def _count(repository: RemoteRepository, names: list[str]) -> ParameterCount:
    tensors: list[tuple[str, AnyTensor]] = []
    for name in names:
        stream, size = repository.open(name), repository.size(name)
        try:
            read = read_gguf_of(stream, size) if name.endswith(GGUF) else tensors_of(read_header_of(stream, size))
        except UnreadableWeights as error:
            raise CatalogueError(f"{name} {error}") from error
        tensors += read.items()
    return count_tensors(tensors)
