"""The schedule of Stable Diffusion 1 and SDXL with v-prediction, for training. Knows no network."""

from diffusers import DDPMScheduler
from torch import Tensor

_TIMESTEPS = 1000


class ScaledLinear:
    """Betas whose roots grow evenly; what is predicted is v = a·noise − s·latents."""

    def __init__(self) -> None:
        self._schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

    def mix(self, latents: Tensor, noise: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """The noisy latents, and v; see `Recipe.mix`."""
        step = self.step(share)
        noisy = self._schedule.add_noise(latents, noise, step)
        return noisy, self._schedule.get_velocity(latents, noise, step)

    def step(self, share: Tensor) -> Tensor:
        """The timesteps, 0 to 999, of parts of noise, 0 to 1."""
        return (share * _TIMESTEPS).long().clamp(0, _TIMESTEPS - 1)
