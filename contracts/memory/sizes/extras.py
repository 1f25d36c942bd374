"""The ControlNets and adapters of a request as components: their sizes, and the activations of ControlNets.

Read from the files where they are on this machine or in the hub's cache; for a ControlNet also from the published
architecture. Knows nothing of devices, budgets or requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from contracts.catalogue.cached import find_cached
from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.catalogue.families import FAMILIES
from contracts.catalogue.rows.controlnets import T2I_ADAPTER
from contracts.errors import AdapterRefused, CatalogueError
from contracts.hub.repository_files import weights_below
from contracts.hub.source import HubSource
from contracts.memory.sizes.component import Component, ModelComponents, Role, size_component
from contracts.requests.entry_parameters import ControlParameters, IpAdapterParameters, LoraParameters
from contracts.weights.adapters.ip_adapter_files import read_ip_adapter
from contracts.weights.adapters.ip_adapter_models import encoders_of
from contracts.weights.adapters.ip_adapter_rows import patches_of_encoder
from contracts.weights.adapters.lora_files import facts_in
from contracts.weights.configs import read_config
from contracts.weights.controls.control_lora_files import is_control_lora
from contracts.weights.controls.controlnet_models import count_control_lora
from contracts.weights.counts.architectures import find_controlnet, read_architectures
from contracts.weights.counts.parameter_counts import (
    ParameterCount,
    controlnet_parts,
    count_component,
    count_files,
)
from contracts.weights.formats.safetensors import read_header
from contracts.weights.vae_files import configuration_of, find_vae, weights_of

_FLOAT32_BYTES = 4


def size_controlnet(
    catalogue: Catalogue, id: str, value_bytes: int, fetched: Path | None = None
) -> Component | None:
    """A ControlNet as a component `controlnet:ID`.

    One that is still on a hub is taken to be as its architecture was published, else as the largest of its family;
    None where the family has none.

    Args:
        fetched: where the files are, for one that was downloaded from a hub.
    """
    row = catalogue.controlnet(id)
    source = fetched or catalogue.place(row)
    name = f"controlnet:{id}"
    if isinstance(source, HubSource):
        cached = find_cached(catalogue, row)
        if cached is None:
            return _published_controlnet(row, source, value_bytes)
        files, folder = _weights(cached.paths), cached.paths[0].parent
    elif source.is_dir() and row.file is None:
        count, folder = count_component(source, row.variant), source
        return size_component(name, Role.CONTROLNET, count, value_bytes, read_config(folder))
    else:
        file = source / row.file if source.is_dir() and row.file is not None else source
        files, folder = _weights(controlnet_parts(file)), file.parent
    config, count = read_config(folder), count_files(files)
    published = find_controlnet(row.family, "", row.class_name)
    if not config and published is not None:  # a file alone does not tell its architecture
        config = published.config
        count = _of_control_lora(catalogue, row, files[0], published.count) or count
    return size_component(name, Role.CONTROLNET, count, value_bytes, config)


def _of_control_lora(
    catalogue: Catalogue, row: ControlNetSpec, file: Path, published: ParameterCount
) -> ParameterCount | None:
    """The count of the ControlNet that a control-LoRA becomes; None for another file."""
    tensors = read_header(file).tensors
    if not is_control_lora(tensors):
        return None
    models = [model for model in catalogue.models if row.misfit(model) is None]
    values = count_control_lora({key: tensor.shape for key, tensor in tensors.items()}, models, catalogue)
    return published if values is None else _unsplit(values)


def size_adapter(catalogue: Catalogue, id: str, value_bytes: int, fetched: Path | None = None) -> Component | None:
    """A LoRA as a component `lora:ID`, with what it makes for a call; None where it is not on this machine."""
    row = catalogue.lora(id)
    source = fetched or catalogue.place(row)
    if isinstance(source, HubSource):
        cached = find_cached(catalogue, row)
        if cached is None:
            return None
        files = list(cached.paths)
    else:
        files = weights_below(source)
    return size_component(f"lora:{id}", Role.ADAPTER, _lora_count(files, row.family), value_bytes)


def size_lora_slots(model: ModelComponents, extras: Sequence[Component], slot_ranks: int) -> Component | None:
    """The slots of a compiled denoiser for these LoRAs, as a component `lora_slots`.

    All its linear layers count, the few outside of its blocks too: those have no slots, and leave room for scales.

    Args:
        slot_ranks: as in `Policy`.

    Returns:
        None without LoRAs, or where the denoiser's layers are unknown or never compiled.
    """
    has_loras = any(extra.name.startswith("lora:") for extra in extras)
    denoiser = next((part for part in model.components if part.role is Role.DENOISER), None)
    if not has_loras or denoiser is None or denoiser.is_packed or not slot_ranks * denoiser.linear_widths:
        return None
    count = ParameterCount(slot_ranks * denoiser.linear_widths)
    return size_component("lora_slots", Role.LORA_SLOTS, count, denoiser.value_bytes or model.value_bytes)


def _lora_count(files: Sequence[Path], family: str) -> ParameterCount:
    facts = facts_in(files[0], family) if files else None
    # A job that names one that cannot be used fails; others must not.
    return count_files(files) if facts is None else ParameterCount(facts.device_values)


def size_ip_adapter(
    catalogue: Catalogue, id: str, value_bytes: int, fetched: Path | None = None
) -> Component | None:
    """What an IP-Adapter puts on the device, as a component `ip_adapter:ID`; None where it is not on this machine.

    That is keys and values of its tokens in each layer, for one reference image and for none; nothing of Redux,
    whose tokens are in the prompt's embedding. Its weights stay in its file, and the image encoder in host memory.
    """
    row = catalogue.ip_adapter(id)
    source = fetched or catalogue.place(row)
    if isinstance(source, HubSource):
        cached = find_cached(catalogue, row)
        if cached is None:
            return None
        source = cached.paths[0]
    try:
        facts = read_ip_adapter(source)
    except (AdapterRefused, OSError) as error:
        raise CatalogueError(str(error)) from error
    count = ParameterCount(facts.device_values)
    return size_component(f"ip_adapter:{id}", Role.ADAPTER, count, value_bytes)


def size_vae(catalogue: Catalogue, id: str, value_bytes: int, fetched: Path | None = None) -> Component | None:
    """A VAE that takes the place of a model's own, as a component `vae:ID`; None where it is still on a hub.

    Args:
        fetched: its folder or file.

    Raises:
        CatalogueError: it cannot be read.
    """
    row = catalogue.vae(id)
    place = find_vae(catalogue, row, fetched)
    if place is None:
        return None
    config, file = configuration_of(place) or published_vae(row.family), weights_of(place)
    # One that would overflow in float16 works in float32 there.
    width = max(value_bytes, 4) if config.get("force_upcast") else value_bytes
    try:
        count = count_files([file])
    except OSError as error:
        raise CatalogueError(f"{file}: {error.strerror}") from None
    return size_component(f"vae:{id}", Role.VAE, count, width, config)


def as_preview_vae(vae: Component) -> Component:
    """The same VAE where it makes previews, as a component `preview_vae:ID`: beside the denoiser, never tiled."""
    return replace(vae, name=f"preview_{vae.name}", role=Role.PREVIEW_VAE, tile_side=None)


def published_vae(family: str) -> Mapping[str, Any]:
    """The configuration of a family's published VAE: a file alone does not tell its own."""
    configs = (one.configs for one in read_architectures() if one.family == family)
    return next((config["vae"] for config in configs if "vae" in config), {})


def size_image_encoders(catalogue: Catalogue) -> dict[str, Component]:
    """The image encoders of IP-Adapters as components, which compute on the CPU in float32.

    Returns:
        Under `image_encoder:NAME`, and under `image_encoder of ID` for the IP-Adapter of each row; without those
        that are not on this machine.
    """
    found: dict[str, Component] = {}
    for name, source in encoders_of(catalogue).items():
        with suppress(CatalogueError, OSError):
            folder = catalogue.image_encoder(source)
            count = count_files([folder / "model.safetensors"])
            component = size_component(f"image_encoder:{name}", Role.IMAGE_ENCODER, count, _FLOAT32_BYTES)
            component = replace(component, prompt_tokens=patches_of_encoder(folder))
            found[component.name] = component
            users = (row.id for row in catalogue.ip_adapters if row.image_encoder == source)
            found |= {f"image_encoder of {id}": component for id in users}
    return found


def size_uploaded(adapter: LoraParameters | IpAdapterParameters, value_bytes: int) -> Component | None:
    """A job's uploaded LoRA or IP-Adapter as a component; None for one of the catalogue's."""
    if adapter.values is None:
        return None
    kind = "ip_adapter" if isinstance(adapter, IpAdapterParameters) else "lora"
    return size_component(f"{kind}:{adapter.name}", Role.ADAPTER, ParameterCount(adapter.values), value_bytes)


def size_uploaded_controlnet(control: ControlParameters, family: str, value_bytes: int) -> Component | None:
    """A job's uploaded ControlNet or T2I-Adapter as a component; None for one of the catalogue's.

    Its file does not tell its architecture: activations are taken to be those of the family's published one, and
    streaming to save nothing.
    """
    if control.values is None:
        return None
    class_name = T2I_ADAPTER if control.is_t2i_adapter else FAMILIES[family].controlnet
    published = find_controlnet(family, "", class_name)
    config = None if published is None else published.config
    name = f"controlnet:{control.component}"
    return size_component(name, Role.CONTROLNET, _unsplit(control.values), value_bytes, config)


def _unsplit(values: int) -> ParameterCount:
    """The count of a component whose layers are not known, so that streaming it saves nothing."""
    return ParameterCount(values, values, values, values)


def _published_controlnet(row: ControlNetSpec, source: HubSource, value_bytes: int) -> Component | None:
    published = find_controlnet(row.family, source.repository, row.class_name)
    if published is None:
        return None
    name = f"controlnet:{row.id}"
    component = size_component(name, Role.CONTROLNET, published.count, value_bytes, published.config)
    return replace(component, origin="architecture" if source.repository in published.sources else "assumed")


def _weights(files: Iterable[Path]) -> list[Path]:
    return [file for file in files if file.suffix == ".safetensors"]
