"""A small stage II for the small DeepFloyd IF, in a folder that repeats the text encoder, as published ones do."""

from __future__ import annotations

from pathlib import Path

import diffusers

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.untrained.deepfloyd import NOISE, pixel_unet
from tests.support.untrained_parts import SIDE, t5_text, t5_tokenizer

CASCADE = "tiny-deepfloyd-ii"


def with_cascade_row(catalogue: Catalogue, folder: Path) -> Catalogue:
    """The catalogue with a row for stage II, whose checkpoint is written into the folder."""
    write_stage_ii(folder / CASCADE)
    row = ModelSpec(id=CASCADE, family="deepfloyd", source=str(folder / CASCADE))
    return with_checkpoint_limits(catalogue.model_copy(update={"models": (*catalogue.models, row)}))


def write_stage_ii(folder: Path) -> None:
    """Write its checkpoint into the folder."""
    tokenizer = t5_tokenizer(77)
    unet = pixel_unet(
        in_channels=6,
        class_embed_type="timestep",
        sample_size=4 * SIDE,
        block_out_channels=(8, 8, 16),
        only_cross_attention=True,
    )
    diffusers.IFSuperResolutionPipeline(
        tokenizer=tokenizer, text_encoder=t5_text(tokenizer), unet=unet,
        scheduler=diffusers.DDPMScheduler(**NOISE, sample_max_value=1.0),
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"), safety_checker=None,
        feature_extractor=None, watermarker=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
