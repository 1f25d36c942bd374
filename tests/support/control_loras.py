"""Small control-LoRAs in the layout of Stability's, and the ControlNets that they become."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.support.original_layout import write_controlnet_file

Tensors = dict[str, torch.Tensor]
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_RANK = 4


def write_control_lora(models: Path, file: Path) -> Tensors:
    """Write a control-LoRA for the small SDXL model, with the own layers of its small ControlNet.

    The layers of the UNet's encoder are halves drawn at random where they are matrices or convolutions. Norms
    alternate between the file's own values and none, and biases, too.

    Args:
        models: the folder of the small models.

    Returns:
        The tensors of the ControlNet that it becomes, under diffusers' names.
    """
    net, unet = models / "controlnets" / "shapes-sdxl-canny", load_file(models / "shapes-sdxl" / "unet" / _WEIGHTS)
    write_controlnet_file(net, file)
    originals = {name.removeprefix("control_model."): tensor for name, tensor in load_file(file).items()}
    whole: Tensors = load_file(net / _WEIGHTS)
    torch.manual_seed(5)
    stored: Tensors = {"lora_controlnet": torch.zeros(0)}
    # Both have the same tensors in the same order of their contents: a name is found by its values.
    named = {name: _name_of(tensor, originals) for name, tensor in whole.items()}
    for number, (name, original) in enumerate(named.items()):
        layer = original.removesuffix(".weight")
        if name.startswith("controlnet_"):
            stored[original] = whole[name]
        elif name.endswith(".weight") and whole[name].dim() > 1:
            up, down = _halves(unet[name])
            stored |= {f"{layer}.up": up, f"{layer}.down": down}
            whole[name] = unet[name] + (up.flatten(1) @ down.flatten(1)).reshape(unet[name].shape)
        elif number % 2:
            stored[original] = whole[name] = torch.randn_like(whole[name])
        else:
            whole[name] = unet[name]
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, file)
    return whole


def _halves(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows, *rest = weight.shape
    ones = [1] * (len(rest) - 1)
    return torch.randn(rows, _RANK, *ones) * 0.1, torch.randn(_RANK, *rest) * 0.1


def _name_of(tensor: torch.Tensor, originals: Tensors) -> str:
    return next(
        name for name, other in originals.items() if other.shape == tensor.shape and torch.equal(other, tensor)
    )
