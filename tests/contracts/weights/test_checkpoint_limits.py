"""Limits of one checkpoint that are read from its description or its tensors' names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import InvalidRequest
from contracts.requests.checks.validation import check
from contracts.requests.schema import Txt2ImgRequest
from contracts.weights.checkpoint_limits import with_checkpoint_limits

FLUX = (
    "img_in.weight",
    "time_in.in_layer.weight",
    "vector_in.in_layer.weight",
    "double_blocks.0.img_mlp.0.weight",
)


def limited(place: Path) -> Catalogue:
    row = ModelSpec(id="one", family="flux", source=str(place))
    return with_checkpoint_limits(Catalogue(root=place.parent, default_model="one", models=(row,)))


def write_folder(folder: Path, **config: bool) -> Path:
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text(json.dumps({"in_channels": 64, **config}))
    return folder


def write_file(file: Path, *names: str, prefix: str = "") -> Path:
    save_file({f"{prefix}{name}": np.zeros((8, 64), np.float32) for name in (*FLUX, *names)}, file)
    return file


def test_guidance_is_refused_where_the_denoiser_has_no_input_for_it(tmp_path: Path) -> None:
    schnell = [
        write_folder(tmp_path / "schnell", guidance_embeds=False),
        write_file(tmp_path / "schnell.safetensors"),
        write_file(tmp_path / "whole.safetensors", prefix="model.diffusion_model."),
    ]
    request = Txt2ImgRequest(prompt="a red circle", guidance_scale=2)

    for place in schnell:
        with pytest.raises(InvalidRequest, match="guidance_scale: has no effect on one; remove it"):
            check(request, limited(place))
        assert check(request.model_copy(update={"guidance_scale": None}), limited(place)).id == "one"


def test_guidance_is_taken_where_the_denoiser_has_an_input_for_it(tmp_path: Path) -> None:
    places = [
        write_folder(tmp_path / "dev", guidance_embeds=True),
        write_folder(tmp_path / "unknown"),
        write_file(tmp_path / "dev.safetensors", "guidance_in.in_layer.weight"),
    ]

    for place in places:
        assert check(Txt2ImgRequest(prompt="a", guidance_scale=2), limited(place)).refuses == ()


@pytest.mark.parametrize(
    ("entries", "found"), [({"requires_aesthetics_score": True}, "sdxl-refiner"), ({}, "sdxl")]
)
def test_a_refiner_is_told_from_a_checkpoint_that_an_img2img_pipeline_saved(
    entries: dict[str, bool], found: str, tmp_path: Path
) -> None:
    index = {"_class_name": "StableDiffusionXLImg2ImgPipeline", **entries}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    row = ModelSpec(id="any", family="sdxl", source=str(tmp_path))
    catalogue = Catalogue(root=tmp_path, default_model="any", models=(row,))

    assert with_checkpoint_limits(catalogue).model("any").family_spec.id == found
