"""Depth maps: those of transformers' pipeline, from files that are what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, DepthEstimationPipeline

from contracts.errors import CatalogueError
from contracts.weights.preprocessor_models import read_preprocessor
from tests.support.preprocessor_models import PreprocessorFolders, photo
from worker.networks.images import Pixels
from worker.preprocessors.depth import depth_map, prepare
from worker.preprocessors.loading import Prepared, load_model, load_processor
from worker.preprocessors.maps import ControlMap

CPU = torch.device("cpu")


def reference(folder: Path, image: Image.Image) -> Pixels:
    """The map of transformers' pipeline, which is loaded apart."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = load_model(folder, read_preprocessor(folder, "depth"), CPU)
    return np.asarray(DepthEstimationPipeline(model=model, image_processor=processor)(image)["depth"])


def made_of(folder: Path, image: Image.Image) -> Pixels:
    control = ControlMap(folder, "depth", image, {})
    control.load(CPU)
    return np.asarray(control.make())


@pytest.mark.parametrize("name", ["dpt", "depth anything"])
def test_the_map_is_that_of_transformers_pipeline(name: str, folders: PreprocessorFolders) -> None:
    folder, image = folders.find(name), photo()
    made = made_of(folder, image)
    assert np.array_equal(made, np.stack([reference(folder, image)] * 3, axis=2))
    assert (made.shape, made.min(), made.max()) == ((40, 60, 3), 0, 255)


def test_an_image_without_depth_is_black(folders: PreprocessorFolders) -> None:
    dpt = folders.find("dpt")
    model, processor, image = load_model(dpt, read_preprocessor(dpt, "depth"), CPU), load_processor(dpt), photo()
    for parameter in model.parameters():
        parameter.data.zero_()
    assert not depth_map(Prepared(model, processor, prepare(processor, image), image.size, {})).any()


def test_the_layer_that_is_never_used_may_be_missing_and_no_other(
    folders: PreprocessorFolders, tmp_path: Path
) -> None:
    dpt, folder, image = folders.find("dpt"), tmp_path / "dpt", photo()
    shutil.copytree(dpt, folder)
    weights = load_file(folder / "model.safetensors")
    unused = "neck.fusion_stage.layers.0.residual_layer1."
    kept = {name: value for name, value in weights.items() if not name.startswith(unused)}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    assert np.array_equal(made_of(folder, image), made_of(dpt, image))
    del kept["head.head.0.weight"]
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CatalogueError, match=r"lacks weights: head\.head\.0\.weight"):
        made_of(folder, image)
