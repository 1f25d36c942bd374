"""Checks a row's local files against the row, by their names, configurations and headers alone.

Opens no connection and loads no weights: what is on a hub is for `contracts.hub.access`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from contracts.catalogue.cached import AnySpec, optional_t5
from contracts.catalogue.catalogue import (
    Catalogue,
    ControlNetSpec,
    IpAdapterSpec,
    LoraSpec,
    NetworkSpec,
    TextualInversionSpec,
    VaeSpec,
)
from contracts.catalogue.families import FAMILIES, Family
from contracts.catalogue.rows.controlnets import T2I_ADAPTER
from contracts.catalogue.rows.models import ModelSpec
from contracts.controlnet_classes import class_of_controlnet
from contracts.errors import AdapterRefused, CatalogueError
from contracts.hub.errors import HubRefused
from contracts.hub.folders import folder_files
from contracts.hub.repository_files import RepositoryFiles, weights_below
from contracts.hub.selection import UNUSED_COMPONENTS, model_files
from contracts.weights.adapters.inversion_models import check_inversion_row
from contracts.weights.adapters.ip_adapter_rows import check_ip_adapter_row
from contracts.weights.adapters.lora_layouts import refuse_control_lora
from contracts.weights.class_checkpoints import class_limits
from contracts.weights.configs import read_configs
from contracts.weights.controls.control_lora_files import is_control_lora
from contracts.weights.controls.controlnet_files import (
    T2I_REMEDY,
    check_modes,
    read_controlnet,
    refuse_other_kinds,
)
from contracts.weights.controls.controlnet_models import find_models
from contracts.weights.controls.flux_control_lora_files import check_row_control_lora
from contracts.weights.formats.gguf import read_gguf
from contracts.weights.formats.header_text import NotSafetensors, UnreadableWeights
from contracts.weights.formats.safetensors import read_header
from contracts.weights.networks import check_network_row
from contracts.weights.quantized import DENOISERS, check_stored, read_quantization
from contracts.weights.text_encoder_files import check_row_text_encoders
from contracts.weights.vae_files import check_vae_row


def check_row_files(catalogue: Catalogue, row: AnySpec) -> None:
    """Check what can be known of a row's files without loading them; passes over what is on a hub.

    Raises:
        CatalogueError: they are missing, incomplete, damaged, or of another family; begins with the source.
    """
    place = catalogue.place(row)
    if isinstance(row, ModelSpec):
        if row.config is not None:
            catalogue.locate(row.config)
        try:
            check_row_text_encoders(catalogue, row)
            check_row_control_lora(catalogue, row)
        except CatalogueError as error:
            raise CatalogueError(f"{row.source}: {error}") from None
    if not isinstance(place, Path):
        return
    try:
        if isinstance(row, IpAdapterSpec):
            check_ip_adapter_row(catalogue, row)
        elif isinstance(row, TextualInversionSpec):
            check_inversion_row(catalogue, row)
        elif isinstance(row, VaeSpec):
            check_vae_row(row, place)
        elif isinstance(row, NetworkSpec):
            check_network_row(row, place)
        elif isinstance(row, LoraSpec):
            _check_lora(place, row)
        elif place.is_dir():
            _check_folder(place, row)
        elif isinstance(row, ControlNetSpec) and not place.with_name("config.json").is_file():
            _check_control_file(place, row, catalogue)
        elif isinstance(row, ModelSpec):
            _check_file(place, row)
        else:
            _read(place)
    except CatalogueError as error:
        raise CatalogueError(f"{row.source}: {error}") from None
    except (AdapterRefused, HubRefused, UnreadableWeights, OSError) as error:
        raise CatalogueError(f"{row.source}: {error}") from None


def _check_file(place: Path, row: ModelSpec) -> None:
    if row.is_gguf:
        read_gguf(place)
    elif row.family_spec.single_file:
        _read(place)
    else:
        raise HubRefused(f"checkpoints of family {row.family} must be a folder in diffusers' layout")


def _check_control_file(place: Path, row: ControlNetSpec, catalogue: Catalogue) -> None:
    names = _read(place)
    if row.is_t2i_adapter:
        raise HubRefused("a T2I-Adapter needs its config.json beside its weights")
    refuse_other_kinds(names, row.family_spec.controlnet)
    check_modes({}, len(row.modes))
    models = tuple(model for model in catalogue.models if row.misfit(model) is None)
    if models and is_control_lora(names):
        find_models(read_controlnet(place), catalogue.model_copy(update={"models": models}))


def _check_lora(place: Path, row: LoraSpec) -> None:
    files = weights_below(place)
    if row.variant is not None and place.is_dir():
        files = [file for file in files if f".{row.variant}." in file.name]
    if len(files) != 1:
        raise HubRefused(f"the folder has {len(files)} .safetensors files; name one of them with `file`")
    refuse_control_lora(_read(files[0]))


def _check_folder(folder: Path, row: ModelSpec | ControlNetSpec) -> None:
    # Of the family's usual checkpoints: a row that names the class of another one has a row of its own.
    files, family = RepositoryFiles.in_folder(folder), FAMILIES[row.family]
    if isinstance(row, ControlNetSpec):
        if "config.json" not in files.names:
            raise HubRefused("the folder has no config.json, so it is not a ControlNet in diffusers' layout")
        config = files.read_json("config.json")
        _check_control_class(config, row)
        _check_context(config.get("cross_attention_dim"), family)
        names = [row.file] if row.file is not None else folder_files(files, row.variant)
    else:
        if "model_index.json" not in files.names:
            raise HubRefused("the folder has no model_index.json, so it is not a checkpoint in diffusers' layout")
        named = str(files.read_json("model_index.json").get("_class_name", ""))
        _check_class(named, family, family.pipeline)
        if row.control_lora is not None and named in family.other_checkpoints:
            raise HubRefused(f"control_lora is for a {family.pipeline}, and this is a {named}: leave one out")
        _check_quantizations(folder, row)
        if family.prompted_by_class:
            class_limits(row, folder)  # what it raises is told
        # Operators may leave T5 out of a folder where it is never loaded.
        names = model_files(None, row.variant, without=(*row.text_encoders, *optional_t5(family), *family.unused))(
            files
        )
    weights = [name for name in names if name.endswith(".safetensors")]
    if not weights:
        raise HubRefused("the folder has no .safetensors weights")
    for name in weights:
        _read(folder / name)


def _check_quantizations(folder: Path, row: ModelSpec) -> None:
    """Refuse components that are quantized in a way that cannot be used, or in another one than the row says."""
    for name, config in read_configs(folder).items():
        if name in UNUSED_COMPONENTS:
            continue
        stored = read_quantization(config, name)
        wanted = row.quantization if name in DENOISERS else row.text_encoder_quantization.get(name)
        if name not in row.text_encoders:
            check_stored(name, wanted, stored)


#: What the names of a family's pipelines for other tasks have behind that of the usual one.
_FORMS = frozenset(net + task for net in ("", "ControlNet") for task in ("", "Img2Img", "Inpaint", "Inpainting"))


def _check_class(named: str, family: Family, expected: str) -> None:
    """Refuse a class of another family; others of the same one, such as its inpaint pipeline, have its parts."""
    stems = {other.id: (_stem(other.pipeline), _stem(other.controlnet)) for other in FAMILIES.values()}
    # Names of some families begin with that of another, and two may have ControlNets of one class.
    longest = max(
        (stem for names in stems.values() for stem in names if named.startswith(stem)), key=len, default=""
    )
    form = _stem(named).removeprefix(_stem(expected))
    if named in {*family.more_pipelines, *family.other_checkpoints}:
        return
    if longest and longest == _stem(expected) and form in _FORMS:
        return
    if longest and longest == _stem(expected):
        known = ", ".join((expected, *family.more_pipelines, *family.other_checkpoints))
        raise HubRefused(f"it is a {named[:80]}, which family {family.id} cannot use; it uses {known}")
    owner = next((id for id, names in stems.items() if longest and longest in names), None)
    remedy = "no family here can use it" if owner is None else f'set family = "{owner}", or another source'
    shown = named[:80] or "checkpoint without a class name"
    raise HubRefused(f"it is a {shown}, and family {family.id} needs a {expected}: {remedy}")


def _check_control_class(config: Mapping[str, Any], row: ControlNetSpec) -> None:
    named, family = class_of_controlnet(config), FAMILIES[row.family]
    if named == T2I_ADAPTER and not row.is_t2i_adapter:
        raise HubRefused(f"it is a {T2I_ADAPTER}, not a ControlNet: {T2I_REMEDY}")
    if row.is_t2i_adapter and named != T2I_ADAPTER:
        raise HubRefused(f'it is a {named[:80]}, and a row with kind = "t2i_adapter" needs a {T2I_ADAPTER}')
    if named and named in (family.controlnet, family.union):
        check_modes(config, len(row.modes))
    elif not row.is_t2i_adapter:
        _check_class(named, family, family.controlnet)


def _check_context(width: object, family: Family) -> None:
    """Refuse a ControlNet of this class that is made for the checkpoints of another family."""
    others = [other for other in FAMILIES.values() if other.controlnet == family.controlnet]
    owner = next((other.id for other in others if width in other.context_widths), family.id)
    if owner != family.id and width not in family.context_widths:
        raise HubRefused(f'its cross_attention_dim is {width}, as {owner} models have it: set family = "{owner}"')


def _stem(class_name: str) -> str:
    return class_name.removesuffix("Pipeline").removesuffix("Model")


def _read(file: Path) -> Collection[str]:
    """The names of its tensors; raises HubRefused where it cannot be read."""
    if file.suffix != ".safetensors":
        raise HubRefused("it must be a folder in diffusers' layout or a .safetensors file")
    try:
        return read_header(file).tensors.keys()
    except NotSafetensors as error:
        raise HubRefused(f"{file.name} {error}") from None
