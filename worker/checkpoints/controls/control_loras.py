"""Makes the whole ControlNet of a control-LoRA: the weights of a model's UNet, and the differences from them."""

from __future__ import annotations

from typing import Any

import torch

from contracts.errors import CatalogueError
from contracts.weights.controls.control_lora_files import ControlLora
from worker.checkpoints.tracking import Tensors

#: In which a UNet's weights are whole numbers of its own, not packed or in 8 bits.
_WHOLE = (torch.float32, torch.float16, torch.bfloat16)


def whole_control_lora(stored: Tensors, unet: Any, dtype: torch.dtype) -> Tensors:
    """The tensors of a ControlNet, under diffusers' names.

    A layer's weight is W + up · down, as in ComfyUI, added in float32 and rounded once.

    Args:
        stored: those of the file.
        unet: the model's, wherever its weights are now.

    Raises:
        CatalogueError: the file does not fit the model, or the UNet's weights are packed or in 8 bits.
    """
    own = dict(unet.state_dict())
    shapes = ({name: tuple(tensor.shape) for name, tensor in each.items()} for each in (stored, own))
    made = ControlLora.of(*shapes)
    found = {tensor: stored[name] for tensor, name in made.whole.items()}
    for name in made.of_unet:
        # A copy: the UNet's memory is moved and given back without the ControlNet.
        found[name] = whole_weight(name, own[name]).to("cpu", dtype, copy=True)
    for name, layer in made.changed.items():
        weight = whole_weight(name, own[name]).to("cpu", torch.float32)
        up, down = (stored[f"{layer}.{half}"].float().flatten(1) for half in ("up", "down"))
        found[name] = (weight + (up @ down).reshape(weight.shape)).to(dtype)
    return found


def whole_weight(name: str, weight: torch.Tensor, adapter: str = "a control-LoRA") -> torch.Tensor:
    """Return a weight that something can be added to.

    Args:
        adapter: what is added to it.

    Raises:
        CatalogueError: it is packed, or in 8 bits.
    """
    if weight.dtype not in _WHOLE or type(weight.data) is not torch.Tensor:
        raise CatalogueError(
            f"it is {adapter}, which is added to the model's own weights, and {name} is in fewer bits here; "
            "use a whole ControlNet or checkpoint, or the model without quantization and DARKROOM_WORKER_ALLOW_FP8"
        )
    return weight.detach()
