"""T2I-Adapters are loaded whole, and only where a model has places for their features."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.errors import CatalogueError
from contracts.weights.controls.t2i_adapter_files import features_of
from contracts.weights.counts.architectures import Architecture, read_architectures
from tests.support.t2i_adapters import t2i_adapter
from worker.checkpoints.controls.controlnets import load_controlnet
from worker.checkpoints.controls.t2i_adapters import (
    check_t2i_fits,
    load_t2i_adapter,
    load_t2i_file,
    rehearse_t2i_adapter,
)
from worker.checkpoints.rehearsal import rehearse_controlnet
from worker.families import get_family

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_UNET = {"block_out_channels": [8, 16]}


def _published(id: str) -> Architecture:
    return next(one for one in read_architectures() if one.id == id)


def _fits(adapter: str, model: str) -> None:
    net = _published(adapter).t2i_adapter
    assert net is not None
    check_t2i_fits(SimpleNamespace(config=net.config), SimpleNamespace(config=_published(model).configs["unet"]))


def test_published_ones_fit_their_models_and_no_others() -> None:
    _fits("sdxl", "sdxl")
    _fits("sd1.5", "sd1.5")
    _fits("sd1.5", "sd2.1")
    with pytest.raises(CatalogueError, match=r"it makes features of 320 channels at 1/8.*made for another model"):
        _fits("sd1.5", "sdxl")
    with pytest.raises(CatalogueError, match="the model takes 320 channels at 1/8, 640 channels at 1/16"):
        _fits("sdxl", "sd1.5")


def test_weights_beside_their_configuration_are_those_of_the_folder(tmp_path: Path) -> None:
    t2i_adapter(_UNET).save_pretrained(tmp_path)
    (tmp_path / _WEIGHTS).rename(tmp_path / "sketch.safetensors")

    loaded = load_t2i_adapter(tmp_path / "sketch.safetensors", torch.float32)

    stored = load_file(tmp_path / "sketch.safetensors")
    assert {name: tensor.tolist() for name, tensor in loaded.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in stored.items()
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"in_channels": 1, "num_res_blocks": 2},
        {"adapter_type": "full_adapter_xl", "channels": [8, 16, 24, 24], "downscale_factor": 16},
        {"adapter_type": "light_adapter", "channels": [8, 16, 32], "num_res_blocks": 4},
    ],
)
def test_a_file_alone_tells_its_configuration_by_its_layers(options: dict[str, Any], tmp_path: Path) -> None:
    made = t2i_adapter(_UNET, **options)
    made.save_pretrained(tmp_path)

    loaded = load_t2i_file(tmp_path / _WEIGHTS, torch.float32)

    assert {name: loaded.config[name] for name in made.config if name[0] != "_"} == {
        name: made.config[name] for name in made.config if name[0] != "_"
    }
    side = made.total_downscale_factor
    image = torch.rand(1, made.config.in_channels, side, side)
    with torch.no_grad():
        features = loaded(image)
        assert all(map(torch.equal, features, made(image)))
    places = [(feature.shape[1], side // feature.shape[2]) for feature in features]
    assert places == features_of(loaded.config)


def _lacking(folder: Path) -> None:
    tensors = load_file(folder / _WEIGHTS)
    del tensors["adapter.conv_in.bias"]
    save_file(tensors, folder / _WEIGHTS)


def _without_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("options", "damage", "reason"),
    [
        ({}, _lacking, "lacks weights: adapter.conv_in.bias"),
        ({}, _without_configuration, r"needs its config\.json beside its weights"),
        ({"in_channels": 4}, lambda folder: None, "takes control images of 4 channels"),
    ],
)
def test_one_that_cannot_be_used_is_refused_at_the_start_and_when_it_is_loaded(
    options: dict[str, Any], damage: Any, reason: str, tmp_path: Path
) -> None:
    t2i_adapter(_UNET, **options).save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(CatalogueError, match=reason):
        rehearse_t2i_adapter(get_family("sdxl"), tmp_path)
    with pytest.raises(CatalogueError, match=reason):
        load_t2i_adapter(tmp_path, torch.float32)


def test_one_that_is_taken_for_a_controlnet_is_named_with_the_remedy(tmp_path: Path) -> None:
    t2i_adapter(_UNET).save_pretrained(tmp_path)
    for refuse in (rehearse_controlnet, lambda family, path: load_controlnet(family, path, torch.float32)):
        with pytest.raises(CatalogueError, match=r'it is a T2IAdapter, not a ControlNet: .* kind = "t2i_adapter"'):
            refuse(get_family("sdxl"), tmp_path)
