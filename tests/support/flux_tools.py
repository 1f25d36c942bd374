"""Checkpoints of the FLUX.1 tools: the parts of the small FLUX.1 model under another class's name.

A transformer with other input channels than that model's is random; its other layers have the model's shapes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import diffusers
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.weights.checkpoint_limits import with_checkpoint_limits

#: Id of the row -> class of the checkpoint, and channels of its transformer's input.
TOOLS = {
    "tiny-kontext": ("FluxKontextPipeline", 64),
    "tiny-fill": ("FluxFillPipeline", 384),
    "tiny-control": ("FluxControlPipeline", 128),
}


def with_flux_tools(catalogue: Catalogue, folder: Path) -> Catalogue:
    """The catalogue with a row of family `flux` for each tool, whose checkpoint is written into the folder."""
    source = catalogue.root / catalogue.model("shapes-flux").source
    rows = [_row(id, _write_checkpoint(source, folder / id, *tool)) for id, tool in TOOLS.items()]
    return with_checkpoint_limits(catalogue.model_copy(update={"models": (*catalogue.models, *rows)}))


def _write_checkpoint(source: Path, folder: Path, pipeline: str, channels: int) -> Path:
    """Write a checkpoint in diffusers layout, with copies of the parts that it has in common with FLUX.1."""
    shutil.copytree(source, folder)
    config = diffusers.FluxTransformer2DModel.load_config(source / "transformer")
    if channels != config["in_channels"]:
        torch.manual_seed(0)
        own = {**config, "in_channels": channels, "out_channels": config["in_channels"]}
        diffusers.FluxTransformer2DModel.from_config(own).save_pretrained(folder / "transformer")
    index = json.loads((source / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": pipeline}))
    return folder


def _row(id: str, folder: Path) -> ModelSpec:
    defaults = {"width": 64, "height": 64, "num_inference_steps": 4, "max_sequence_length": 64}
    return ModelSpec(id=id, family="flux", source=str(folder), defaults=defaults, max_pixels=65_536)
