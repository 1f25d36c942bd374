"""The tables of a single file must be those that its scheduler computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import DDPMScheduler

from contracts.errors import CatalogueError
from worker.checkpoints.one_file.noise_tables import check_noise_tables

_CONFIG: dict[str, object] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
}  # fmt: skip


def _table(**changes: object) -> torch.Tensor:
    table: torch.Tensor = DDPMScheduler(**{**_CONFIG, **changes}).alphas_cumprod
    return table


def _sigmas(signal: torch.Tensor) -> torch.Tensor:
    return ((1 - signal) / signal) ** 0.5


@pytest.mark.parametrize("as_stored", [torch.Tensor.float, torch.Tensor.half])
@pytest.mark.parametrize("order", [lambda table: table, lambda table: table.flip(0)])
def test_the_tables_of_the_same_schedule_are_accepted_in_any_dtype_and_order(
    as_stored: Callable[[torch.Tensor], torch.Tensor], order: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    signal = _table()
    stored = {"alphas_cumprod": as_stored(signal), "denoiser.sigmas": as_stored(order(_sigmas(signal)))}
    check_noise_tables(stored, _CONFIG)


@pytest.mark.parametrize("name", ["alphas_cumprod", "denoiser.sigmas"])
def test_tables_of_another_schedule_are_refused_by_name(name: str) -> None:
    signal = _table(beta_end=0.02, beta_schedule="linear", beta_start=0.0001)
    stored = {name: signal if name == "alphas_cumprod" else _sigmas(signal)}
    with pytest.raises(CatalogueError, match=rf"\({name}\) is not the one that the scheduler"):
        check_noise_tables(stored, _CONFIG)


def test_a_zero_terminal_table_needs_a_scheduler_that_follows_it() -> None:
    stored = {"alphas_cumprod": _table(rescale_betas_zero_snr=True)}
    with pytest.raises(CatalogueError, match="set rescale_betas_zero_snr"):
        check_noise_tables(stored, _CONFIG)
    check_noise_tables(stored, {**_CONFIG, "rescale_betas_zero_snr": True})


def test_a_file_without_tables_and_flow_models_have_nothing_to_compare() -> None:
    check_noise_tables({}, _CONFIG)
    check_noise_tables({"alphas_cumprod": torch.zeros(3)}, {"shift": 3.0})
