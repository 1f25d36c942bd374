"""The training objective of each family's denoiser: the noise that is mixed in, the target, and the call.

As in diffusers' DreamBooth scripts, with their training utilities. Knows no LoRA and no optimizer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
    compute_snr,
)

from worker.training.examples import Example
from worker.training.packing import pack, unpack

#: FLUX.1 dev is told a guidance scale; 1 is the one without guidance.
_FLUX_GUIDANCE = 1.0
_LOGIT_NORMAL = "logit_normal"


@dataclass(frozen=True)
class Noised:
    """Latents with noise.

    Attributes:
        latents: (n, channels, height, width).
        target: what the denoiser should answer, of the same shape.
        timesteps: (n,) as the denoiser is given them.
        weights: (n,) of each image in the loss.
    """

    latents: torch.Tensor
    target: torch.Tensor
    timesteps: torch.Tensor
    weights: torch.Tensor


class Objective(ABC):
    """Training objective of one family's denoiser."""

    def __init__(self, scheduler_config: Any, snr_gamma: float | None = None) -> None:
        """`scheduler_config`: of the checkpoint's own scheduler."""
        self.snr_gamma = snr_gamma
        self._prepare(scheduler_config)

    @abstractmethod
    def _prepare(self, scheduler_config: Any) -> None:
        """Make the training scheduler."""

    @abstractmethod
    def add_noise(self, latents: torch.Tensor, generator: torch.Generator) -> Noised:
        """Mix noise into latents on the CPU; all draws are from the generator."""

    @abstractmethod
    def predict(self, denoiser: Any, noised: Noised, rows: Sequence[Example]) -> torch.Tensor:
        """Call the denoiser on its device; (n, channels, height, width)."""


class DiffusionObjective(Objective):
    """Stable Diffusion 1 and 2: noise or velocity on a schedule of 1000 steps."""

    def _prepare(self, scheduler_config: Any) -> None:
        self._scheduler = DDPMScheduler.from_config(scheduler_config)

    def add_noise(self, latents: torch.Tensor, generator: torch.Generator) -> Noised:
        """See `Objective`; min-SNR weights where gamma is given (https://arxiv.org/abs/2303.09556)."""
        scheduler = self._scheduler
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(
            0, scheduler.config.num_train_timesteps, (len(latents),), generator=generator, dtype=torch.long
        )
        is_velocity = scheduler.config.prediction_type == "v_prediction"
        target = scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise
        weights = torch.ones(len(latents))
        if self.snr_gamma is not None:
            snr = compute_snr(scheduler, timesteps)
            weights = snr.clamp(max=self.snr_gamma) / (snr + 1 if is_velocity else snr)
        return Noised(scheduler.add_noise(latents, noise, timesteps), target, timesteps, weights)

    def predict(self, denoiser: Any, noised: Noised, rows: Sequence[Example]) -> torch.Tensor:
        """See `Objective`."""
        answer: torch.Tensor = denoiser(
            noised.latents, noised.timesteps, _joined(rows, "prompt_embeds", noised), **self._more(rows, noised)
        ).sample
        return answer

    def _more(self, rows: Sequence[Example], noised: Noised) -> dict[str, Any]:
        del rows, noised
        return {}


class SdxlObjective(DiffusionObjective):
    """Stable Diffusion XL: the same, told the sizes of the images."""

    def _more(self, rows: Sequence[Example], noised: Noised) -> dict[str, Any]:
        sizes = torch.tensor([[*row.original_size, *row.crop, *row.size] for row in rows], dtype=torch.float32)
        pooled = _joined(rows, "pooled_prompt_embeds", noised)
        return {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes.to(noised.latents.device)}}


class FlowObjective(Objective):
    """Stable Diffusion 3: the way from the image to the noise, most often asked for in its middle."""

    def _prepare(self, scheduler_config: Any) -> None:
        self._scheduler = FlowMatchEulerDiscreteScheduler.from_config(scheduler_config)

    def add_noise(self, latents: torch.Tensor, generator: torch.Generator) -> Noised:
        """See `Objective`."""
        scheduler = self._scheduler
        noise = torch.randn(latents.shape, generator=generator)
        places = compute_density_for_timestep_sampling(
            _LOGIT_NORMAL, len(latents), logit_mean=0.0, logit_std=1.0, generator=generator
        )
        indexes = (places * scheduler.config.num_train_timesteps).long()
        sigmas = scheduler.sigmas.cpu()[indexes].float()
        share = sigmas[:, None, None, None]
        weights = compute_loss_weighting_for_sd3(_LOGIT_NORMAL, sigmas)
        mixed = (1 - share) * latents + share * noise
        return Noised(mixed, noise - latents, scheduler.timesteps.cpu()[indexes].float(), weights)

    def predict(self, denoiser: Any, noised: Noised, rows: Sequence[Example]) -> torch.Tensor:
        """See `Objective`."""
        answer: torch.Tensor = denoiser(
            hidden_states=noised.latents,
            timestep=noised.timesteps,
            encoder_hidden_states=_joined(rows, "prompt_embeds", noised),
            pooled_projections=_joined(rows, "pooled_prompt_embeds", noised),
            return_dict=False,
        )[0]
        return answer


class FluxObjective(FlowObjective):
    """FLUX.1: the same, with four positions of the latents in a token."""

    def predict(self, denoiser: Any, noised: Noised, rows: Sequence[Example]) -> torch.Tensor:
        """See `Objective`."""
        # Imported here: it loads text encoders' classes, which log before a worker has set up their loggers.
        from diffusers import FluxPipeline

        latents = noised.latents
        count, _, height, width = latents.shape
        device, dtype = latents.device, latents.dtype
        prompts = _joined(rows, "prompt_embeds", noised)
        guidance = None
        if denoiser.config.guidance_embeds:
            guidance = torch.full((count,), _FLUX_GUIDANCE, device=device)
        answer = denoiser(
            hidden_states=pack(latents),
            timestep=noised.timesteps / 1000,
            guidance=guidance,
            pooled_projections=_joined(rows, "pooled_prompt_embeds", noised),
            encoder_hidden_states=prompts,
            txt_ids=torch.zeros(prompts.shape[1], 3, device=device, dtype=dtype),
            img_ids=FluxPipeline._prepare_latent_image_ids(count, height // 2, width // 2, device, dtype),
            return_dict=False,
        )[0]
        return unpack(answer, height, width)


class QwenObjective(FlowObjective):
    """Qwen-Image: the same on packed latents; it is not distilled, and is told no guidance."""

    def predict(self, denoiser: Any, noised: Noised, rows: Sequence[Example]) -> torch.Tensor:
        """See `Objective`."""
        count, _, height, width = noised.latents.shape
        mask = None
        if "prompt_embeds_mask" in rows[0].embeddings:
            mask = torch.cat([row.embeddings["prompt_embeds_mask"] for row in rows]).to(noised.latents.device)
        answer = denoiser(
            hidden_states=pack(noised.latents),
            timestep=noised.timesteps / 1000,
            encoder_hidden_states=_joined(rows, "prompt_embeds", noised),
            encoder_hidden_states_mask=mask,
            img_shapes=[[(1, height // 2, width // 2)]] * count,
            return_dict=False,
        )[0]
        return unpack(answer, height, width)


class ZImageObjective(FlowObjective):
    """Z-Image: the same way in the other direction, from the noise at time 0 to the image at time 1."""

    def predict(self, denoiser: Any, noised: Noised, rows: Sequence[Example]) -> torch.Tensor:
        """See `Objective`."""
        answers = denoiser(
            list(noised.latents.unsqueeze(2)),
            (1000 - noised.timesteps) / 1000,
            list(_joined(rows, "prompt_embeds", noised)),
            return_dict=False,
        )[0]
        return -torch.stack(answers).squeeze(2)


OBJECTIVES: dict[str, Callable[[Any, float | None], Objective]] = {
    "sd15": DiffusionObjective,
    "sdxl": SdxlObjective,
    "sd3": FlowObjective,
    "flux": FluxObjective,
    "qwen-image": QwenObjective,
    "z-image": ZImageObjective,
}


def _joined(rows: Sequence[Example], name: str, noised: Noised) -> torch.Tensor:
    """An embedding of all rows, as the denoiser's own values."""
    return torch.cat([row.embeddings[name] for row in rows]).to(noised.latents.device, noised.latents.dtype)
