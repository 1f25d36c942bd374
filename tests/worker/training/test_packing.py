"""Latents as tokens."""

from __future__ import annotations

import torch
from diffusers import FluxPipeline

from worker.training.packing import pack, unpack


def test_latents_are_packed_as_diffusers_packs_them_and_come_back() -> None:
    latents = torch.randn(2, 3, 4, 6)
    assert torch.equal(pack(latents), FluxPipeline._pack_latents(latents, 2, 3, 4, 6))
    assert torch.equal(unpack(pack(latents), 4, 6), latents)
