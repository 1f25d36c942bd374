"""Upscalers by the headers of their files, and rows that do not agree with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import UpscalerSpec
from contracts.catalogue.reader import read_catalogue
from contracts.errors import CatalogueError
from contracts.weights.networks import check_network_row, read_upscaler
from tests.support.upscalers import write_compact, write_esrgan


def to_old_names(file: Path) -> Path:
    """The file with the names of the first ESRGAN, of one block."""
    names = {"conv_first": "model.0", "conv_body": "model.1.sub.1", "conv_up1": "model.3", "conv_up2": "model.6",
             "conv_hr": "model.8", "conv_last": "model.10"}  # fmt: skip
    weights = {}
    for name, value in load_file(file).items():
        layer, _, kind = name.rpartition(".")
        if layer.startswith("body.0.rdb"):
            dense, convolution = layer.split(".")[2:]
            layer = f"model.1.sub.0.{dense.upper()}.{convolution}.0"
        weights[f"{names.get(layer, layer)}.{kind}"] = value
    save_file(weights, file)
    return file


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_scale_of_an_esrgan_is_read_from_its_layers(scale: int, tmp_path: Path) -> None:
    facts = read_upscaler(write_esrgan(tmp_path / "a.safetensors", scale, blocks=2))
    assert (facts.architecture, facts.scale) == ("ESRGAN", scale)


def test_the_first_esrgans_names_are_known_too(tmp_path: Path) -> None:
    new = read_upscaler(write_esrgan(tmp_path / "new.safetensors"))
    old = read_upscaler(to_old_names(write_esrgan(tmp_path / "old.safetensors")))
    assert old == new


@pytest.mark.parametrize("scale", [1, 3, 4])
def test_the_scale_of_a_compact_is_read_from_its_last_layer(scale: int, tmp_path: Path) -> None:
    facts = read_upscaler(write_compact(tmp_path / "a.safetensors", scale, layers=5))
    assert (facts.architecture, facts.scale, facts.radius) == ("Compact", scale, 7)


#: What a file may hold instead, by the name of a tensor and its shape.
OTHERS: list[dict[str, tuple[int, ...]]] = [
    {"x": (3,)},
    {"conv_first.weight": (4, 3, 3, 3), "conv_last.weight": (3, 4, 3, 3)},
    {"conv_first.weight": (4,), "conv_last.weight": (3, 4, 3, 3)},
    {"body.0.weight": (4, 3, 3, 3), "body.1.weight": (4,)},
    {"body.0.weight": (4, 1, 3, 3), "body.1.weight": (4,), "body.2.weight": (4, 4, 3, 3), "body.2.bias": (4,)},
    {"body.0.weight": (4, 3, 3, 3), "body.1.weight": (4,), "body.2.weight": (7, 4, 3, 3), "body.2.bias": (7,)},
    {"body.x.weight": (4, 3, 3, 3), "body.0.weight": (4, 3, 3, 3), "body.1.weight": (4,)},
]


@pytest.mark.parametrize("shapes", OTHERS)
def test_a_file_with_another_network_is_refused(shapes: Any, tmp_path: Path) -> None:
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "a.safetensors")
    with pytest.raises(CatalogueError, match="architectures ESRGAN and Compact"):
        read_upscaler(tmp_path / "a.safetensors")


def test_a_pickle_is_refused_without_being_read(tmp_path: Path) -> None:
    torch.save({"body.0.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "a.safetensors")
    with pytest.raises(CatalogueError, match="pickle"):
        read_upscaler(tmp_path / "a.safetensors")


def test_a_row_with_another_scale_than_its_file_is_told_the_right_one(tmp_path: Path) -> None:
    file = write_compact(tmp_path / "a.safetensors", scale=2)
    check_network_row(UpscalerSpec(id="a", source=str(file), scale=2), file)
    with pytest.raises(CatalogueError, match="set scale = 2"):
        check_network_row(UpscalerSpec(id="a", source=str(file), scale=4), file)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('id = "xl"\nsource = "a.safetensors"\nscale = 2', "must differ"),
        ('id = "up"\nsource = "a.pth"\nscale = 2', "must be a .safetensors file"),
        ('id = "up"\nsource = "a.safetensors"', "scale"),
        ('id = "up"\nsource = "a.safetensors"\nscale = 9', "8"),
        ('id = "up"\nsource = "a.safetensors"\nscale = 2\nfamily = "sdxl"', "unknown key"),
    ],
)
def test_a_wrong_row_is_refused_with_its_reason(row: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "catalogue.toml"
    models = 'default_model = "xl"\n[[models]]\nid = "xl"\nfamily = "sdxl"\nsource = "org/xl"\n'
    file.write_text(f"{models}[[upscalers]]\n{row}\n", encoding="utf-8")
    with pytest.raises(CatalogueError, match=message):
        read_catalogue(file)
