"""Images as upscalers and erasers take and give them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from contracts.jobs.failures import FailureCode, JobFailed

#: (height, width, 3) of 0…255.
Pixels = npt.NDArray[np.uint8]


def to_input(pixels: Pixels, device: torch.device) -> torch.Tensor:
    """The input of a network: (1, 3, height, width) of 0…1."""
    return torch.from_numpy(pixels.copy()).to(device).permute(2, 0, 1).unsqueeze(0).float().div_(255)


def to_pixels(made: torch.Tensor) -> Pixels:
    """The pixels of an output, or of a part of one: (3, height, width) of about 0…1."""
    pixels: Pixels = made.clamp(0, 1).mul(255).round_().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return pixels


def require_finite(made: torch.Tensor, network: str) -> None:
    """Check an output.

    Args:
        network: what made it, for the message.

    Raises:
        JobFailed: INTERNAL: it contains NaN or infinite values.
    """
    if not bool(torch.isfinite(made).all()):
        message = f"the {network}'s output contains NaN or infinite values; its file may be damaged"
        raise JobFailed(FailureCode.INTERNAL, message)
