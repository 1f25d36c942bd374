"""Previews of a model whose VAE is a tiny one (TAESD)."""

from __future__ import annotations

import diffusers
import torch

from tests.support.untrained_parts import seeded
from worker.sampling.previews import fit_projection


def test_the_colors_of_previews_are_fitted_to_a_tiny_vae_too() -> None:
    channels = (8, 8, 8, 8)
    vae = seeded(
        lambda: diffusers.AutoencoderTiny(encoder_block_out_channels=channels, decoder_block_out_channels=channels)
    )

    projection = fit_projection(vae)

    assert (projection.matrix.shape, projection.bias.shape) == ((4, 3), (3,))
    assert torch.isfinite(projection.matrix).all()
