"""Latents that a transformer is given as a sequence, 2 × 2 positions a token, as FLUX.1's pipelines pack them."""

from __future__ import annotations

from typing import Any

#: Positions of a token.
PATCH = 4


def unpack_latents(pipeline: Any, latents: Any, size: tuple[int, int]) -> Any:
    """Return latents as the pipeline's VAE decodes them.

    Args:
        pipeline: with the method `_unpack_latents` of diffusers' `FluxPipeline`.
        latents: (n, tokens, channels of a token).
        size: (width, height) in pixels.

    Returns:
        (n, channels, height, width), or (n, channels, frames, height, width) from a VAE with frames.
    """
    width, height = size
    return pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
