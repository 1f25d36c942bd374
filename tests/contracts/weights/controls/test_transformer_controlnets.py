"""Which models a transformer's ControlNet suits, by the names and shapes of its tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import AdapterRefused
from contracts.weights.controls.controlnet_files import read_controlnet
from contracts.weights.controls.controlnet_models import find_models

Shapes = dict[str, tuple[int, ...]]
_OUTSIDE: Shapes = {
    "img_in.weight": (8, 4), "img_in.bias": (8,), "txt_in.weight": (8, 6), "txt_in.bias": (8,),
    "txt_norm.weight": (6,),
}  # fmt: skip


def _blocks(count: int) -> Shapes:
    return {f"transformer_blocks.{number}.attn.to_q.weight": (8, 8) for number in range(count)}


def _net(count: int) -> Shapes:
    behind: Shapes = {f"controlnet_blocks.{number}.weight": (8, 8) for number in range(count)}
    behind |= {f"controlnet_blocks.{number}.bias": (8,) for number in range(count)}
    reader = {"controlnet_x_embedder.weight": (8, 4), "controlnet_x_embedder.bias": (8,)}
    return {**_OUTSIDE, **_blocks(count), **behind, **reader}


def _write(shapes: Shapes, file: Path) -> Path:
    file.parent.mkdir(exist_ok=True)
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, file)
    return file


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """A Qwen-Image with three blocks, of which only the transformer's header is read, and one that is not here."""
    whole = {**_OUTSIDE, **_blocks(3), "norm_out.linear.weight": (16, 8), "proj_out.weight": (4, 8)}
    (tmp_path / "model").mkdir()
    _write(whole, tmp_path / "model" / "transformer" / "diffusion_pytorch_model.safetensors")
    models = (ModelSpec(id="own", family="qwen-image", source="model"),)
    return Catalogue(root=tmp_path, default_model="own", models=models)


def test_one_of_qwen_image_suits_models_whose_first_blocks_it_copies(catalogue: Catalogue, tmp_path: Path) -> None:
    tensors = read_controlnet(_write(_net(2), tmp_path / "net.safetensors"))
    assert find_models(tensors, catalogue) == ("qwen-image", ["own"])
    far = ModelSpec(id="far", family="qwen-image", source="somebody/model")
    elsewhere = catalogue.model_copy(update={"models": (far,)})
    assert find_models(tensors, elsewhere) == ("qwen-image", [])
    sdxl = catalogue.model_copy(update={"models": (ModelSpec(id="sdxl", family="sdxl", source="a/b"),)})
    with pytest.raises(AdapterRefused, match="the catalogue has no model of a family that it could be for"):
        find_models(tensors, sdxl)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        (_net(4), "more transformer_blocks than the model"),
        ({**_net(1), "controlnet_x_embedder.weight": (8, 8)}, "reads 8 channels, and own gives it 4"),
        ({**_net(1), "controlnet_blocks.1.weight": (8, 8)}, r"it has controlnet_blocks\.1\.weight of .*, and own"),
        ({**_net(1), "transformer_blocks.01.attn.to_q.weight": (8, 8)}, "are not numbered from 0 on"),
    ],
)  # fmt: skip
def test_one_with_other_layers_is_refused_by_them(
    shapes: Shapes, reason: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        find_models(read_controlnet(_write(shapes, tmp_path / "net.safetensors")), catalogue)
