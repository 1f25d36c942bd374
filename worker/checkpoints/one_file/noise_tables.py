"""The noise schedule that a single file stores: compared with the one that its scheduler computes.

The original releases' code reads these tables; here the scheduler's configuration decides. Where the two
differ, the checkpoint was trained with another schedule than it would be sampled with.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import DDPMScheduler

from contracts.errors import CatalogueError

#: Tables of the file: the fraction of signal that is left after each step, and the ratio of noise to signal.
_SIGNAL, _SIGMAS = "alphas_cumprod", "denoiser.sigmas"
#: float16 has 11 significant bits.
_TOLERANCE = 2e-3
_FIELDS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")


def check_noise_tables(tensors: Mapping[str, torch.Tensor], scheduler: Mapping[str, object]) -> None:
    """Refuse a file whose tables are not those of a scheduler's configuration.

    Args:
        scheduler: its configuration, with what the file's keys say of it.

    Raises:
        CatalogueError: they differ; it says how.
    """
    tables = {name: tensors[name].double().flatten() for name in (_SIGNAL, _SIGMAS) if name in tensors}
    if not tables or "beta_schedule" not in scheduler:
        return
    follows_zero_snr = bool(scheduler.get("rescale_betas_zero_snr"))
    plain, zero_snr = _signal(scheduler, rescaled=False), _signal(scheduler, rescaled=True)
    for name, stored in tables.items():
        signal = stored.sort(descending=True).values if name == _SIGNAL else 1 / (1 + stored.sort().values ** 2)
        if _agree(signal, plain) or (follows_zero_snr and _agree(signal, zero_snr)):
            continue
        if _agree(signal, zero_snr):
            reason = (
                "ends without signal (zero-terminal SNR): set rescale_betas_zero_snr in the scheduler_config.json "
                "of its `config`"
            )
        else:
            reason = "is not the one that the scheduler of its `config` computes: name the right `config`"
        raise CatalogueError(f"the noise schedule in its file ({name}) {reason}")


def _signal(scheduler: Mapping[str, object], *, rescaled: bool) -> torch.Tensor:
    given = {name: scheduler[name] for name in _FIELDS if scheduler.get(name) is not None}
    table: torch.Tensor = DDPMScheduler(**given, rescale_betas_zero_snr=rescaled).alphas_cumprod
    return table.double()


def _agree(stored: torch.Tensor, computed: torch.Tensor) -> bool:
    return stored.shape == computed.shape and bool(((stored - computed).abs() < _TOLERANCE).all())
