"""ControlNets in one file without a configuration: loaded as the model's architecture, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.errors import CatalogueError
from contracts.memory.sizes.extras import size_controlnet
from contracts.weights.row_files import check_row_files
from tests.support.original_layout import write_controlnet_file
from worker.checkpoints.controls.controlnets import load_controlnet
from worker.families import get_family

_WEIGHTS = "diffusion_pytorch_model.safetensors"
Tensors = dict[str, torch.Tensor]


def _denoiser(catalogue: Catalogue, name: str) -> Any:
    family = get_family(name)
    denoiser_class = getattr(diffusers, family.denoiser_class)
    config = denoiser_class.load_config(catalogue.root / f"shapes-{name}" / family.denoiser)
    with torch.device("meta"):
        return denoiser_class.from_config(config)


def _folder(catalogue: Catalogue, family: str = "sdxl") -> Path:
    return catalogue.root / "controlnets" / f"shapes-{family}-canny"


def _copy(catalogue: Catalogue, family: str, file: Path) -> None:
    save_file(load_file(_folder(catalogue, family) / _WEIGHTS), file)


def _original(catalogue: Catalogue, family: str, file: Path) -> None:
    write_controlnet_file(_folder(catalogue, family), file)


@pytest.mark.parametrize(
    ("family", "write"), [("sdxl", _copy), ("sdxl", _original), ("flux", _copy), ("sd3", _copy)]
)
def test_a_controlnet_in_one_file_alone_is_the_one_of_its_folder(
    family: str, write: Callable[[Catalogue, str, Path], None], catalogue: Catalogue, tmp_path: Path
) -> None:
    file = tmp_path / "civitai.safetensors"
    write(catalogue, family, file)
    denoiser = _denoiser(catalogue, family)
    single = load_controlnet(get_family(family), file, torch.float32, denoiser)
    whole = load_controlnet(get_family(family), _folder(catalogue, family), torch.float32)
    kept, read = whole.state_dict(), single.state_dict()
    assert kept.keys() == read.keys()
    assert all(torch.equal(tensor, read[name]) for name, tensor in kept.items())
    buffers = dict(single.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in whole.named_buffers())
    settings = {name: value for name, value in whole.config.items() if not name.startswith("_")}
    assert {name: _listed(single.config[name]) for name in settings} == {
        name: _listed(value) for name, value in settings.items()
    }


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.update({"middle_block.1.up": torch.zeros(1)}), "a LoRA, or a control-LoRA without"),
        (lambda t: t.update({"task_embedding": torch.zeros(6, 4)}), "a union of several kinds"),
        (lambda t: t.update({"controlnet_mode_embedder.weight": torch.zeros(10, 4)}), "a union of several kinds"),
        (lambda t: t.update({"lllite_unet_a.down.0.weight": torch.zeros(1)}), "a ControlNet-LLLite"),
        (lambda t: t.update({"adapter.body.0.block1.weight": torch.zeros(1)}), "a T2I-Adapter"),
    ],
)
def test_other_kinds_of_control_in_one_file_are_named_by_the_start_and_by_the_worker(
    change: Callable[[Tensors], None], reason: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    file = tmp_path / "one.safetensors"
    tensors = load_file(_folder(catalogue) / _WEIGHTS)
    change(tensors)
    save_file(tensors, file)
    row = ControlNetSpec(id="one", family="sdxl", source=str(file))
    with pytest.raises(CatalogueError, match=reason):
        check_row_files(catalogue, row)
    with pytest.raises(CatalogueError, match=reason):
        load_controlnet(get_family("sdxl"), file, torch.float32, _denoiser(catalogue, "sdxl"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("conv_in.bias"), "lacks weights: conv_in.bias"),
        (lambda t: t.update({"extra.weight": torch.zeros(1)}), "no layer of it takes: extra.weight"),
        (lambda t: t.update({"conv_in.weight": torch.zeros(64, 5, 3, 3)}), "of another shape: conv_in.weight"),
    ],
)
def test_each_tensor_of_a_single_file_is_accounted_for(
    change: Callable[[Tensors], object], reason: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    tensors = load_file(_folder(catalogue) / _WEIGHTS)
    change(tensors)
    save_file(tensors, tmp_path / "one.safetensors")
    denoiser = _denoiser(catalogue, "sdxl")
    with pytest.raises(CatalogueError, match=reason) as refused:
        load_controlnet(get_family("sdxl"), tmp_path / "one.safetensors", torch.float32, denoiser)
    assert "put its config.json there" in str(refused.value)


def test_a_tensor_that_the_converter_would_drop_is_named(catalogue: Catalogue, tmp_path: Path) -> None:
    _original(catalogue, "sdxl", tmp_path / "one.safetensors")
    tensors = {**load_file(tmp_path / "one.safetensors"), "control_model.new_layer.weight": torch.zeros(1)}
    save_file(tensors, tmp_path / "one.safetensors")
    denoiser = _denoiser(catalogue, "sdxl")
    with pytest.raises(CatalogueError, match=r"takes new_layer\.weight of its file"):
        load_controlnet(get_family("sdxl"), tmp_path / "one.safetensors", torch.float32, denoiser)


def test_the_plan_counts_a_single_file(catalogue: Catalogue, tmp_path: Path) -> None:
    _copy(catalogue, "sdxl", tmp_path / "one.safetensors")
    row = ControlNetSpec(id="one", family="sdxl", source=str(tmp_path / "one.safetensors"))
    folder = row.model_copy(update={"id": "whole", "source": str(_folder(catalogue))})
    both = catalogue.model_copy(update={"controlnets": (row, folder)})
    single, whole = size_controlnet(both, "one", 4), size_controlnet(both, "whole", 4)
    assert single is not None
    assert whole is not None
    assert single.bytes == whole.bytes
