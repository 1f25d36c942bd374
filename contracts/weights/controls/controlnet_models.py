"""The models that a ControlNet's file suits: those whose denoiser has the layers of which it is a copy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES, Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.weights.controls.control_lora_files import ENCODER, ControlLora, is_control_lora
from contracts.weights.controls.controlnet_files import OF_UNETS, ControlNetFacts
from contracts.weights.controls.t2i_adapter_files import find_t2i_models, is_t2i_adapter
from contracts.weights.controls.transformer_controlnets import find_transformer_models, is_of_transformer
from contracts.weights.counts.architectures import find_controlnet
from contracts.weights.denoiser_files import Layers, find_suited_models, read_denoiser
from contracts.weights.formats.safetensors import Tensor

#: Layers that only a ControlNet has.
_OWN = "controlnet_"
#: Ends of the names of what reads a prompt's vectors.
_READS_PROMPT = (".attn2.to_k.weight", ".attn2.to_k.down")


def find_models(tensors: Mapping[str, Tensor], catalogue: Catalogue) -> tuple[str, list[str]]:
    """Find the family that a file of control is for, and those of its models with that task that it suits.

    Args:
        tensors: as `read_controlnet` returns them.

    Returns:
        Without any model where none can be compared on this machine.

    Raises:
        AdapterRefused: it suits no model here.
    """
    able = tuple(model for model in catalogue.models if model.can_run(Task.CONTROLNET))
    catalogue = catalogue.model_copy(update={"models": able})
    if is_t2i_adapter(tensors):
        return find_t2i_models(tensors, catalogue)
    if is_of_transformer(tensors):
        return find_transformer_models(tensors, catalogue)
    copied = {name: tensor.shape for name, tensor in tensors.items() if not name.startswith(_OWN)}
    widths = {shape[-1] for name, shape in copied.items() if name.endswith(_READS_PROMPT)}
    return find_suited_models(
        (row for row in FAMILIES.values() if row.controlnet == OF_UNETS),
        catalogue,
        may_suit=lambda family: widths.issubset(family.context_widths),
        misfit=partial(_control_lora_misfit if is_control_lora(tensors) else _misfit, copied),
        no_family="the catalogue has no model of a family that it could be for",
    )


def count_values(tensors: Mapping[str, Tensor], family: str, models: Iterable[str], catalogue: Catalogue) -> int:
    """Return the number of values that a file puts into memory: for a control-LoRA, those of what it becomes.

    Args:
        tensors: as `read_controlnet` returns them.
        family, models: as `find_models` returns them; without models, it counts as the published ControlNet.
    """
    if not is_control_lora(tensors):
        return ControlNetFacts.of(tensors).values
    rows = [catalogue.model(id) for id in models]
    found = count_control_lora({name: tensor.shape for name, tensor in tensors.items()}, rows, catalogue)
    published = find_controlnet(family, "", OF_UNETS)
    return found or (0 if published is None else published.count.values)


def count_control_lora(names: Layers, models: Iterable[ModelSpec], catalogue: Catalogue) -> int | None:
    """Return the number of values of the ControlNet that a control-LoRA becomes.

    Args:
        models: that it may be used with; those that it suits have layers of the same sizes.

    Returns:
        None where none of them can be read on this machine, or suits it.
    """
    for model in models:
        layers = read_denoiser(model, catalogue)
        if layers is not None:
            with suppress(CatalogueError):
                return ControlLora.of(names, layers).values
    return None


def _control_lora_misfit(stored: Layers, layers: Layers, model: ModelSpec) -> str | None:
    try:
        ControlLora.of(stored, layers)
    except CatalogueError as error:
        return f"{error} ({model.id})"
    return None


def _misfit(copied: Layers, layers: Layers, model: ModelSpec) -> str | None:
    encoder = {name: shape for name, shape in layers.items() if name.startswith(ENCODER)}
    for name in sorted(copied.keys() | encoder.keys()):
        own, needed = copied.get(name), encoder.get(name)
        if own != needed:
            shown = [f"has {name[:120]} of {list(shape)}" if shape else "lacks it" for shape in (own, needed)]
            return f"it {shown[0]}, and {model.id} {shown[1]}" if own else f"it lacks {name[:120]} of {model.id}"
    return None
