"""The models that a ControlNet's file suits: those whose UNet's encoder has the layers of which it is a copy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES
from contracts.catalogue.rows.models import ModelSpec
from contracts.weights.controls.t2i_adapter_files import find_t2i_models, is_t2i_adapter
from contracts.weights.denoiser_files import Layers, find_suited_models
from contracts.weights.formats.safetensors import Tensor

#: Class of the ControlNets of UNets.
_CLASS = "ControlNetModel"
#: Layers that only a ControlNet has.
_OWN = "controlnet_"
#: Beginnings of the names of a UNet's encoder.
_ENCODER = ("conv_in.", "time_embedding.", "add_embedding.", "class_embedding.", "down_blocks.", "mid_block.")
#: The end of the name of a layer that reads a prompt's vectors.
_READS_PROMPT = ".attn2.to_k.weight"


def find_models(tensors: Mapping[str, Tensor], catalogue: Catalogue) -> tuple[str, list[str]]:
    """Find the family that a ControlNet or T2I-Adapter is for, and those of its models that it suits.

    Args:
        tensors: as `read_controlnet` returns them.

    Returns:
        Without any model where none can be compared on this machine.

    Raises:
        AdapterRefused: it suits no model here.
    """
    if is_t2i_adapter(tensors):
        return find_t2i_models(tensors, catalogue)
    copied = {name: tensor.shape for name, tensor in tensors.items() if not name.startswith(_OWN)}
    widths = {shape[-1] for name, shape in copied.items() if name.endswith(_READS_PROMPT)}
    return find_suited_models(
        (row for row in FAMILIES.values() if row.controlnet == _CLASS),
        catalogue,
        may_suit=lambda family: widths.issubset(family.context_widths),
        misfit=partial(_misfit, copied),
        no_family="the catalogue has no model of a family that it could be for",
    )


def _misfit(copied: Layers, layers: Layers, model: ModelSpec) -> str | None:
    encoder = {name: shape for name, shape in layers.items() if name.startswith(_ENCODER)}
    for name in sorted(copied.keys() | encoder.keys()):
        own, needed = copied.get(name), encoder.get(name)
        if own != needed:
            shown = [f"has {name[:120]} of {list(shape)}" if shape else "lacks it" for shape in (own, needed)]
            return f"it {shown[0]}, and {model.id} {shown[1]}" if own else f"it lacks {name[:120]} of {model.id}"
    return None
