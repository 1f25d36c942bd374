"""What the tests of checkpoints share: a small SDXL that can be written as one file."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import torch
import transformers

from contracts.catalogue.catalogue import Catalogue


@pytest.fixture(scope="package")
def two_widths(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained SDXL whose two text encoders differ in width, as the real ones do.

    diffusers tells the encoders of a single file apart by their width alone.
    """
    folder = tmp_path_factory.mktemp("two-widths") / "sdxl"
    source = catalogue.root / "shapes-sdxl"
    torch.manual_seed(0)
    text = transformers.CLIPTextConfig.from_pretrained(source / "text_encoder", hidden_size=32)
    unet = diffusers.UNet2DConditionModel.load_config(source / "unet")
    diffusers.StableDiffusionXLPipeline.from_pretrained(
        source,
        dtype=torch.float32,
        text_encoder=transformers.CLIPTextModel(text),
        unet=diffusers.UNet2DConditionModel.from_config({**unet, "cross_attention_dim": 32 + 64}),
    ).save_pretrained(folder)
    return folder
