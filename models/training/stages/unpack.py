"""Puts the shipped autoencoders and text encoders where their training leaves them, for what is trained then.

They are in half precision, so that what follows is not, bit for bit, what it would be after their own training.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from models.training.networks.export import checkpoint_folder
from models.training.stages import autoencoder, text


def write_all() -> None:
    """Write both autoencoders and the three sets of text encoders, in float32; what has been trained stays."""
    sdxl, sd3, flux = (
        DiffusionPipeline.from_pretrained(checkpoint_folder(family), dtype=torch.float32)
        for family in ("sdxl", "sd3", "flux")
    )
    _write(sdxl.vae, autoencoder.folder(4))
    _write(flux.vae, autoencoder.folder(16))
    _write(sdxl.text_encoder, text.folder("clip") / "first")
    _write(sdxl.text_encoder_2, text.folder("clip") / "second")
    _write(sd3.text_encoder, text.folder("blind-clip") / "first")
    _write(sd3.text_encoder_2, text.folder("blind-clip") / "second")
    _write(flux.text_encoder_2, text.folder("t5") / "t5")


def _write(model: Any, folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(parents=True)
        model.save_pretrained(folder)
