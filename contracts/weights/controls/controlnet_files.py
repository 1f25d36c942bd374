"""ControlNets in one file: which kind a file is, by the names of its tensors, and how large. Loads nothing.

Kinds that look like a ControlNet and are not one would be loaded in part.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from contracts.controlnet_classes import modes_of_controlnet
from contracts.errors import AdapterDamaged, AdapterRefused, CatalogueError
from contracts.weights.adapters.lora_layouts import FLOATS
from contracts.weights.controls.control_lora_files import FIRST_OF_HINT, is_control_lora
from contracts.weights.controls.t2i_adapter_files import is_t2i_adapter
from contracts.weights.controls.transformer_controlnets import is_of_transformer
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import Tensor, read_header

#: Channels of a control image.
RGB = 3
#: Class of the ControlNets of UNets.
OF_UNETS = "ControlNetModel"
#: Layers of a UNet's ControlNet in diffusers' layout: the first that reads the control image, and the last.
_FIRST, _LAST = "controlnet_cond_embedding.conv_in.weight", "controlnet_mid_block.weight"

#: What to do with a T2I-Adapter that is taken for a ControlNet.
T2I_REMEDY = 'name its folder, with its config.json, in a row of [[controlnets]] with kind = "t2i_adapter"'

#: A name that only this kind has -> what it is, and what to do.
_OTHER_KINDS: Sequence[tuple[re.Pattern[str], str]] = (
    (
        re.compile(r"^lora_controlnet$"),
        "a control-LoRA, whose weights change those of a UNet: it works with Stable Diffusion 1 and SDXL",
    ),
    (
        re.compile(r"\.(down|up)$|^lora_"),
        "a LoRA, or a control-LoRA without the tensor that marks one (lora_controlnet): take the whole ControlNet",
    ),
    (re.compile(r"^lllite_"), "a ControlNet-LLLite, which no pipeline here can run: take a whole ControlNet"),
    (
        re.compile(
            r"^(task_embedding|transformer_layes\.|spatial_ch_projs|control_add_embedding|control_type|"
            r"controlnet_mode_embedder\.)"
        ),
        "a union of several kinds of control: put its config.json beside it, and its kinds in `modes` of its row",
    ),
    (re.compile(r"^(adapter\.)?(body|conv_in)\.\d"), f"a T2I-Adapter, not a ControlNet: {T2I_REMEDY}"),
    (
        re.compile(r"^(image_proj|ip_adapter)[._]"),
        "an IP-Adapter, not a ControlNet",
    ),
    (re.compile(r"^(model\.diffusion_model|first_stage_model)\."), "a whole checkpoint, not a ControlNet"),
)


def refuse_other_kinds(names: Collection[str], class_name: str) -> None:
    """Refuse a file that is known to be something else; raises CatalogueError.

    Args:
        class_name: of the ControlNets of its family.
    """
    if class_name == OF_UNETS and is_control_lora(names):
        return
    for pattern, kind in _OTHER_KINDS:
        found = next((name for name in names if pattern.search(name)), None)
        if found is not None:
            raise CatalogueError(f"it is {kind} ({found[:80]})")


def check_modes(config: Mapping[str, Any], modes: int) -> None:
    """Compare the kinds of control that a ControlNet has with those of its row.

    Args:
        config: its `config.json`; empty for a file alone, which is never a union.
        modes: how many its row names.

    Raises:
        CatalogueError: they are not as many.
    """
    found = modes_of_controlnet(config)
    if found != modes:
        raise CatalogueError(
            f"it is a union of {str(found)[:20]} kinds of control (by its config.json), and its row names "
            f'{modes}: all of them must be in `modes`, such as modes = ["canny", "tile"], in the order of their '
            "numbers"
            if found
            else f"its row names {modes} kinds of control in `modes`, and it has one kind: remove them"
        )


class ControlNetFacts(BaseModel):
    """Facts from the header of a ControlNet's file.

    Attributes:
        values: number of values in all its tensors in memory.
    """

    model_config = ConfigDict(frozen=True)

    values: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> ControlNetFacts:
        """Of the tensors of a file that was read."""
        return cls(values=sum(tensor.values for tensor in tensors.values()))


def read_controlnet(file: Path) -> Mapping[str, Tensor]:
    """Read the tensors of a ControlNet or T2I-Adapter in diffusers' layout, or of a control-LoRA.

    Only the header of the file is read.

    Raises:
        AdapterRefused: it is another kind of file, or takes other control images.
    """
    try:
        tensors = read_header(file).tensors
    except NotSafetensors as error:
        raise AdapterDamaged(f"the file {error}") from None
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise AdapterRefused(f"{name[:120]} is in {tensor.dtype}, whose scales are missing")
    if is_t2i_adapter(tensors):
        return tensors
    try:
        refuse_other_kinds(tensors, OF_UNETS)
    except CatalogueError as error:
        raise AdapterRefused(str(error)) from None
    if is_of_transformer(tensors):
        return tensors
    needed = (FIRST_OF_HINT,) if is_control_lora(tensors) else (_FIRST, _LAST)
    missing = next((name for name in needed if name not in tensors), None)
    if missing is not None:
        raise AdapterRefused(
            f"it has no {missing}, so it is not the ControlNet of a UNet (Stable Diffusion 1, SDXL) in diffusers' "
            "layout, and none of SD3, FLUX.1 or Qwen-Image; load it with diffusers and save it with "
            "save_pretrained, or, of another family, name its folder in a row of [[controlnets]]"
        )
    shape = tensors[needed[0]].shape
    if len(shape) != 4 or shape[1] != RGB:
        shown = f"{needed[0]} has {list(shape)}"
        raise AdapterRefused(f"it takes control images of other channels than {RGB} ({shown})")
    return tensors
