"""A small refiner for the small SDXL model: its second encoder, VAE and scheduler, and a random UNet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import diffusers

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.untrained_parts import seeded

REFINER = "tiny-refiner"
#: What the UNet is told beside the prompt: five numbers, and the encoder's vector.
_NUMBERS = 5


def with_refiner_row(catalogue: Catalogue, folder: Path) -> Catalogue:
    """The catalogue with a row for the refiner, whose checkpoint is written into the folder."""
    row = ModelSpec(
        id=REFINER,
        family="sdxl",
        source=str(write_refiner(catalogue.root / "shapes-sdxl", folder / REFINER)),
        defaults={"width": 64, "height": 64, "num_inference_steps": 4},
        max_pixels=65_536,
    )
    return with_checkpoint_limits(catalogue.model_copy(update={"models": (*catalogue.models, row)}))


def write_refiner(source: Path, folder: Path) -> Path:
    """Write a checkpoint in diffusers layout, as the published refiner's is, for the SDXL model in `source`."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("text_encoder", "tokenizer", "unet"))
    encoder = json.loads((folder / "text_encoder_2" / "config.json").read_text())
    config = json.loads((source / "unet" / "config.json").read_text())
    options = {name: value for name, value in config.items() if not name.startswith("_")} | {
        "cross_attention_dim": encoder["hidden_size"],
        "projection_class_embeddings_input_dim": encoder["projection_dim"]
        + _NUMBERS * config["addition_time_embed_dim"],
    }
    seeded(lambda: diffusers.UNet2DConditionModel(**options)).save_pretrained(folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    changes = {
        "_class_name": "StableDiffusionXLImg2ImgPipeline",
        "text_encoder": [None, None],
        "tokenizer": [None, None],
        "force_zeros_for_empty_prompt": False,
        "requires_aesthetics_score": True,
    }
    (folder / "model_index.json").write_text(json.dumps({**index, **changes}))
    return folder
