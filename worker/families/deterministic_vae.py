"""A VAE for pipelines that draw the latents of their inputs from torch's global generator. Not a family."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class DeterministicVae:
    """VAE whose encoded samples are the mean of their distribution.

    diffusers 0.42's SD3 ControlNet pipelines, and Qwen-Image's for inpainting, draw the latents of control images
    from torch's global generator, which makes an image depend on earlier jobs and on the others in its call.
    `test_sd3_controlnet_pipelines_draw_from_the_global_generator` fails when SD3's stop doing that.
    """

    def __init__(self, vae: Any) -> None:
        self._vae = vae

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def encode(self, pixels: Any) -> Any:
        """Encode as the VAE does; `sample()` of the result's distribution returns its mean."""
        mean = self._vae.encode(pixels).latent_dist.mode
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=mean))
