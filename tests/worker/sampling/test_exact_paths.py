"""Deterministic schedulers follow the equation that they solve, where a model's answer is known exactly."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from contracts.catalogue.schedulers import SCHEDULERS
from worker.sampling.schedulers import make_scheduler

#: They add noise at each step.
STOCHASTIC = {"euler_a", "lcm", "tcd", "dpmpp_2m_sde"}
#: Latents of which an exact model is known: normally distributed around a mean.
MEAN, SPREAD = 0.3, 0.5


def _exact_model(kind: str, sample: torch.Tensor, signal: float, noise: float) -> torch.Tensor:
    """The velocity that a model predicts which has learned this: for `signal` × latents + `noise` × noise."""
    share = SPREAD**2 * signal / (signal**2 * SPREAD**2 + noise**2)
    latents = MEAN + share * (sample - signal * MEAN)
    drawn = (sample - signal * latents) / noise
    return signal * drawn - noise * latents if kind == "diffusion" else drawn - latents


def _parts(kind: str, timestep: float) -> tuple[float, float]:
    """The shares of signal and noise that the model was trained with at a timestep: SDXL's, or a flow's."""
    if kind == "flow":
        return 1 - timestep / 1000, timestep / 1000
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)
    sigma = float(np.interp(timestep, np.arange(1000), np.sqrt((1 - kept) / kept)))
    signal = (1 + sigma**2) ** -0.5
    return signal, sigma * signal


def _solve(name: str, checkpoint: Any, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a scheduler ends with the exact model, and where the path ends on which it began."""
    kind, scheduler = SCHEDULERS[name].kind, make_scheduler(name, checkpoint.config)
    scheduler.set_timesteps(steps)
    sample = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sample = sample * getattr(scheduler, "init_noise_sigma", 1.0)
    end = None
    for timestep in scheduler.timesteps:
        seen = sample if name == "flow_euler" else scheduler.scale_model_input(sample, timestep)
        signal, noise = _parts(kind, float(timestep))
        if end is None:
            deviations = (seen - signal * MEAN) / (signal**2 * SPREAD**2 + noise**2) ** 0.5
            end = MEAN + SPREAD * deviations
        output = _exact_model(kind, seen, signal, noise)
        sample = scheduler.step(output, timestep, sample, return_dict=False)[0]
    assert end is not None
    return sample, end


@pytest.mark.parametrize(
    "name",
    [row.id for row in SCHEDULERS.values() if row.kind in ("diffusion", "flow") and row.id not in STOCHASTIC],
)
def test_a_deterministic_scheduler_ends_where_the_equation_that_it_solves_ends(name: str) -> None:
    """A wrong prediction type or a wrong sigma would end elsewhere."""
    checkpoint: Any = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.5)
    if SCHEDULERS[name].kind == "diffusion":
        checkpoint = diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
            timestep_spacing="leading", steps_offset=1,
        )  # fmt: skip
    found, expected = _solve(name, checkpoint, 100)
    assert (found - expected).abs().mean() < 0.015
    found, _ = _solve(name, checkpoint, 1)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", [row.id for row in SCHEDULERS.values() if row.kind == "edm"])
def test_one_step_is_enough_for_a_scheduler_of_edm(name: str) -> None:
    scheduler = make_scheduler(name, {"_class_name": SCHEDULERS[name].class_name})
    scheduler.set_timesteps(1)
    assert len(scheduler.timesteps) == 1
