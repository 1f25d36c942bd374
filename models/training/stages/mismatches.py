"""Writes adapters that a service must refuse by name: made, not trained, and all of them tiny."""

from collections.abc import Iterable

import torch
from safetensors.torch import save, save_file
from torch import Tensor

from models.training.networks.export import make_readable
from models.training.stages.lora import FOLDER

BAD_ADAPTERS = FOLDER / "bad"
_RANK = 4


def write_all() -> None:
    """One file per way to be wrong."""
    torch.manual_seed(0)
    BAD_ADAPTERS.mkdir(parents=True, exist_ok=True)
    own = _pairs(["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"], width=64)
    foreign_width = _pairs(_layers_of_sd15(), width=320)
    _write("wrong-family.safetensors", foreign_width)
    _write("no-adapter.safetensors", {"encoder.weight": torch.randn(8, 8)})
    _write("not-a-number.safetensors", {name: weight * float("nan") for name, weight in own.items()})
    whole = save(own)
    (BAD_ADAPTERS / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])


def _layers_of_sd15() -> Iterable[str]:
    """Names that SDXL's UNet has too, at widths that no checkpoint here has."""
    for block in range(2):
        layer = f"unet.down_blocks.{block}.attentions.0.transformer_blocks.0"
        yield from (f"{layer}.attn1.to_q", f"{layer}.attn1.to_v")


def _pairs(layers: Iterable[str], width: int) -> dict[str, Tensor]:
    weights = {}
    for layer in layers:
        weights[f"{layer}.lora_A.weight"] = torch.randn(_RANK, width).half()
        weights[f"{layer}.lora_B.weight"] = torch.randn(width, _RANK).half()
    return weights


def _write(name: str, weights: dict[str, Tensor]) -> None:
    save_file(weights, BAD_ADAPTERS / name, metadata={"format": "pt"})
    make_readable([BAD_ADAPTERS / name])
