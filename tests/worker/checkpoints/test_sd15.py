"""Checkpoints of Stable Diffusion 1: one original file, one that inpaints, one with a safety checker."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode, Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import InvalidRequest
from contracts.memory.sizes.models import read_components
from contracts.storage import Storage
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.bare_diffusers import paint
from tests.support.jobs import generate_pixels, make_job
from tests.support.original_layout import write_sd15_file
from tests.support.untrained import sd15
from worker.checkpoints.loader import load_model
from worker.families import get_family
from worker.pool.pool import Pool


def _catalogue(source: Path, **fields: object) -> Catalogue:
    row = ModelSpec(id="one", family="sd15", source=str(source), defaults={"width": 64, "height": 64}, **fields)
    return with_checkpoint_limits(Catalogue(root=source.parent, default_model="one", models=(row,)))


def test_one_file_in_the_original_layout_gives_the_weights_of_the_folder(tmp_path: Path) -> None:
    folder, file, made = tmp_path / "folder", tmp_path / "one.safetensors", sd15.pipeline()
    made.save_pretrained(folder)
    write_sd15_file(folder, file)
    catalogue = _catalogue(file, config=str(folder))

    loaded = load_model(catalogue, catalogue.model("one"), get_family("sd15"), file, torch.float32)

    for name in ("unet", "vae", "text_encoder"):
        ours, theirs = loaded.components[name].state_dict(), made.components[name].state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_checkpoint_whose_unet_takes_a_mask_inpaints_and_does_nothing_else(
    tmp_path: Path, storage: Storage
) -> None:
    sd15.pipeline(in_channels=9).save_pretrained(tmp_path / "folder")
    catalogue = _catalogue(tmp_path / "folder")
    assert catalogue.model("one").tasks == [Task.INPAINT]
    with pytest.raises(InvalidRequest, match="one runs only inpaint"):
        make_job(catalogue, "sd15")

    pool = Pool(catalogue, device="cpu")
    images = [
        generate_pixels(make_job(catalogue, "sd15", Mode.INPAINT, strength=strength), pool, storage)
        for strength in (1.0, 0.7)
    ]
    assert (images[0] != images[1]).any()


def test_a_checkpoint_that_is_distilled_for_few_steps_has_defaults_of_its_own(
    tmp_path: Path, storage: Storage
) -> None:
    distilled = sd15.pipeline(time_cond_proj_dim=16)
    distilled.scheduler = diffusers.LCMScheduler.from_config(distilled.scheduler.config)
    distilled.save_pretrained(tmp_path / "folder")
    index = json.loads((tmp_path / "folder" / "model_index.json").read_text())
    index["_class_name"] = "LatentConsistencyModelPipeline"
    (tmp_path / "folder" / "model_index.json").write_text(json.dumps(index))
    catalogue = _catalogue(tmp_path / "folder")
    with pytest.raises(InvalidRequest, match="negative_prompt"):
        make_job(catalogue, "sd15", negative_prompt="a blue square")

    job = make_job(catalogue, "sd15", num_inference_steps=None)
    ours = generate_pixels(job, Pool(catalogue, device="cpu"), storage)

    assert (job.scheduler, job.num_inference_steps, job.guidance_scale) == ("lcm", 4, 8.5)
    call = {"prompt": job.prompt, "width": 64, "height": 64, "num_inference_steps": 4, "guidance_scale": 8.5}
    folder = tmp_path / "folder"
    theirs = paint(folder, "LatentConsistencyModelPipeline", call, scheduler="lcm", seed=7)
    assert np.array_equal(ours, np.asarray(theirs))


def test_a_safety_checker_is_neither_loaded_nor_counted(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    sd15.pipeline().save_pretrained(folder)
    plain = read_components(_catalogue(folder), _catalogue(folder).model("one"), 4)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "requires_safety_checker": True,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"not weights")
    catalogue = _catalogue(folder)

    loaded = load_model(catalogue, catalogue.model("one"), get_family("sd15"), folder, torch.float32)

    assert loaded.safety_checker is None
    assert read_components(catalogue, catalogue.model("one"), 4) == plain
