"""Poses: what the model is given shows the whole image, and joints are where its heatmaps have their tops.

Equality with transformers' own functions, which need SciPy, was measured once: the input bit for bit, joints
within 0.001 pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from contracts.errors import CatalogueError
from contracts.jobs.failures import JobFailed
from contracts.weights.preprocessor_models import read_preprocessor
from tests.support.preprocessor_models import photo, write_segformer, write_vitpose
from worker.preprocessors.loading import Prepared, load_model, load_processor
from worker.preprocessors.maps import ControlMap
from worker.preprocessors.pose import find_joints, prepare

CPU = torch.device("cpu")
OPTIONS = {"confidence": 0.3}


@pytest.mark.parametrize(("simple", "experts"), [(True, 1), (False, 1), (True, 2)])
def test_each_form_of_vitpose_makes_a_map_in_the_images_size(tmp_path: Path, simple: bool, experts: int) -> None:
    control = ControlMap(write_vitpose(tmp_path, simple=simple, experts=experts), "pose", photo(), OPTIONS)
    control.load(CPU)
    made = control.make()
    assert (made.size, made.mode) == ((60, 40), "RGB")


def see_what_is_bright(model: Any, score: float) -> None:
    """Set a VitPose's weights such that all its joints are where an image is bright."""
    for layer in model.backbone.encoder.layer:  # they add nothing
        layer.attention.output.dense.weight.data.zero_()
        layer.mlp.fc2.weight.data.zero_()
    embeddings = model.backbone.embeddings
    embeddings.position_embeddings.data.zero_()
    first = embeddings.patch_embeddings.projection
    first.weight.data.zero_()
    first.bias.data.zero_()
    first.weight.data[0, :, 4:12, 4:12] = 1 / 192  # the mean of a patch's middle, above 0 where it is bright
    model.head.conv.weight.data.zero_()
    model.head.conv.weight.data[:, 0, 1, 1] = score / 15**0.5


@pytest.mark.parametrize("size", [(320, 200), (100, 300)])
def test_a_joint_is_found_where_the_image_shows_it(tmp_path: Path, size: tuple[int, int]) -> None:
    folder, image, place = write_vitpose(tmp_path, (512, 384)), Image.new("RGB", size), (70, 120)
    ImageDraw.Draw(image).ellipse((place[0] - 12, place[1] - 12, place[0] + 12, place[1] + 12), fill="white")
    model, processor = load_model(folder, read_preprocessor(folder, "pose"), CPU), load_processor(folder)
    given = prepare(processor, image)
    prepared = Prepared(model, processor, given, size, OPTIONS)
    assert given["pixel_values"].shape == (1, 3, 512, 384)
    see_what_is_bright(model, score=0.9)
    joints = [joint for joint in find_joints(prepared) if joint is not None]
    assert len(joints) == 17
    assert np.allclose(joints, [place] * 17, atol=10)
    see_what_is_bright(model, score=0.2)
    assert find_joints(prepared) == [None] * 17


def test_what_is_not_a_vitpose_or_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="not that of a VitPose"):
        prepare(load_processor(write_segformer(tmp_path / "other")), photo())
    control = ControlMap(write_vitpose(tmp_path / "pose"), "pose", photo(), OPTIONS)
    control.load(CPU)
    control._model.head.conv.bias.data.fill_(torch.nan)
    with pytest.raises(JobFailed, match="may be damaged"):
        control.make()
