"""DiT, small and untrained, with names of five classes; `test_dit.py` has the calls that its images equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers

from tests.support.untrained_parts import SIDE, seeded, stirred, vae

#: As the published ones have it: several names of a class, and one name of two classes.
ID2LABEL = {"0": "tench, Tinca tinca", "1": "goldfish", "134": "crane", "207": "golden retriever", "517": "crane"}


def pipeline() -> Any:
    """DiT with two blocks, which predicts the noise's variance, too."""
    transformer = seeded(
        lambda: diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, out_channels=8, num_layers=2, sample_size=SIDE // 8
        )
    )
    scheduler = diffusers.DDIMScheduler(beta_schedule="linear", clip_sample=False)
    return diffusers.DiTPipeline(
        transformer=stirred(transformer), vae=vae(), scheduler=scheduler, id2label=ID2LABEL
    )


def write_as_published(folder: Path) -> None:
    """Give a checkpoint the names of its classes, which `save_pretrained` leaves out, and the old class."""
    _rewrite(folder / "model_index.json", id2label=ID2LABEL, transformer=["diffusers", "Transformer2DModel"])
    _rewrite(folder / "transformer" / "config.json", _class_name="Transformer2DModel")


def _rewrite(file: Path, **entries: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))
