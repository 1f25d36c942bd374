"""A small untrained PixArt-α of those for 1024 pixels, which name the class that PixArt's transformer once had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.untrained import pixart
from tests.support.untrained_parts import WIDTH, seeded, stirred

ALPHA = "tiny-pixart-alpha"


def with_pixart_alpha(catalogue: Catalogue, folder: Path) -> Catalogue:
    """The catalogue with a row of family `pixart` for PixArt-α."""
    folder = folder / ALPHA
    transformer = seeded(
        lambda: diffusers.PixArtTransformer2DModel(
            num_attention_heads=3, attention_head_dim=8, num_layers=2, cross_attention_dim=24, sample_size=128,
            caption_channels=WIDTH,
        )
    )  # fmt: skip
    parts = {**pixart().components, "transformer": stirred(transformer)}
    diffusers.PixArtAlphaPipeline(**parts).save_pretrained(folder)
    _rewrite(folder / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    _rewrite(folder / "transformer" / "config.json", _class_name="Transformer2DModel")
    row = ModelSpec(id=ALPHA, family="pixart", source=str(folder), defaults={"width": 64, "height": 64})
    return with_checkpoint_limits(catalogue.model_copy(update={"models": (*catalogue.models, row)}))


def _rewrite(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))
