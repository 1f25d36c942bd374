"""PixArt-Σ and PixArt-α, small and untrained, and the calls of diffusers that images of PixArt-Σ equal."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.catalogue.rows.models import ModelSpec
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.bare_cases import SIZE, Case
from tests.support.combinations import ALL
from tests.support.untrained_parts import WIDTH, seeded, stirred, t5_text, t5_tokenizer, vae

ALPHA = "tiny-pixart-alpha"


def pipeline() -> Any:
    """PixArt-Σ; predicts the noise's variance, too."""
    tokenizer = t5_tokenizer(300)
    transformer = seeded(
        lambda: diffusers.PixArtTransformer2DModel(
            num_attention_heads=3, attention_head_dim=8, num_layers=2, cross_attention_dim=24, sample_size=8,
            caption_channels=WIDTH,
        )
    )  # fmt: skip
    return diffusers.PixArtSigmaPipeline(
        tokenizer=tokenizer, text_encoder=t5_text(tokenizer), vae=vae(), transformer=stirred(transformer),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )  # fmt: skip


def with_pixart_alpha(catalogue: Catalogue, folder: Path) -> Catalogue:
    """The catalogue with a row for PixArt-α of 1024 pixels, which name the class that its transformer once had."""
    folder = folder / ALPHA
    transformer = seeded(
        lambda: diffusers.PixArtTransformer2DModel(
            num_attention_heads=3, attention_head_dim=8, num_layers=2, cross_attention_dim=24, sample_size=128,
            caption_channels=WIDTH,
        )
    )  # fmt: skip
    parts = {**pipeline().components, "transformer": stirred(transformer)}
    diffusers.PixArtAlphaPipeline(**parts).save_pretrained(folder)
    _rewrite(folder / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    _rewrite(folder / "transformer" / "config.json", _class_name="Transformer2DModel")
    row = ModelSpec(id=ALPHA, family="pixart", source=str(folder), defaults={"width": 64, "height": 64})
    return with_checkpoint_limits(catalogue.model_copy(update={"models": (*catalogue.models, row)}))


def _rewrite(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


#: Sizes and captions as they are given.
_EXACT = {"use_resolution_binning": False, "clean_caption": False}


def _case(mode: Mode, name: str, scheduler: str, call: Any = MappingProxyType({}), **fields: Any) -> Case:
    both = {"guidance_scale": 4.0, "max_sequence_length": 64}
    return Case("pixart", mode, f"{name}Pipeline", {**SIZE, **call, **both}, {**fields, **both}, scheduler)


CASES = [
    _case(Mode.TXT2IMG, "PixArtSigma", "dpmpp_2m", _EXACT),
    *([_case(Mode.TXT2IMG, "PixArtSigma", "euler_a", _EXACT)] if ALL else []),
]  # fmt: skip
