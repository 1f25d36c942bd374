"""Writes safetensors whose bytes depend on their contents alone, and a LoRA in diffusers' layout.

The library writes metadata in an order that changes from process to process, so the header is
written again, sorted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from safetensors.torch import save

_LENGTH_BYTES = 8
#: The format asks for a header whose length is a multiple of this.
_ALIGNMENT_BYTES = 8


def to_safetensors(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the file; equal tensors and metadata give equal bytes."""
    data: bytes = save({name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())})
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = json.loads(data[_LENGTH_BYTES:end])
    text = json.dumps({"__metadata__": dict(metadata), **header}, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + data[end:]


def half_precision(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors in float16.

    Raises:
        ValueError: a value is not finite, or not in half precision.
    """
    halves = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
    for name, tensor in halves.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has values that are not finite")
    return halves


def lora_bytes(
    tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Mapping[str, object]], facts: Mapping[str, str]
) -> bytes:
    """Return a LoRA's file in diffusers' layout, in half precision.

    Args:
        tensors: `COMPONENT.LAYER.lora_A.weight` and `COMPONENT.LAYER.lora_B.weight`.
        settings: of peft, by component, for diffusers, which reads them from the metadata.
        facts: of the training, for people and programs that read the metadata.

    Raises:
        ValueError: a value is not finite, or not in half precision.
    """
    packed = {f"{part}.{name}": value for part, given in settings.items() for name, value in given.items()}
    metadata = {
        "format": "pt",
        LORA_ADAPTER_METADATA_KEY: json.dumps(packed, indent=2, sort_keys=True),
        **facts,
    }
    return to_safetensors(half_precision(tensors), metadata)
