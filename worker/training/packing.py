"""Latents as a transformer's tokens, 2 × 2 positions in each, as FLUX.1's and Qwen-Image's pipelines pack them."""

from __future__ import annotations

import torch


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Return latents, (n, channels, height, width) with even sides, as (n, height·width / 4, 4 · channels)."""
    count, channels, height, width = latents.shape
    tiles = latents.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(count, height * width // 4, 4 * channels)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return tokens as latents of this height and width: the inverse of `pack`."""
    count, _, values = tokens.shape
    tiles = tokens.reshape(count, height // 2, width // 2, values // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return tiles.reshape(count, values // 4, height, width)
