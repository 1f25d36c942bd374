"""Checkpoints with random weights are read like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench.full_size import write_catalogue, write_checkpoint
from contracts.catalogue.reader import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.counts.architectures import Architecture
from tests.support.combinations import usual_or_all
from worker.pool.pool import Pool


def tiny_architecture(family: str) -> Architecture:
    """The shapes model's configurations as an architecture."""
    folder = BUILT_IN_CATALOGUE.parent / f"shapes-{family}"
    paths = sorted(path for path in folder.glob("*/config.json") if "scheduler" not in path.parent.name)
    configs = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    return Architecture(f"tiny-{family}", family, (), {}, configs)


@pytest.mark.parametrize("family", usual_or_all("sdxl", ["sdxl", "sd3", "flux"]))
def test_a_checkpoint_with_random_weights_is_loaded_like_any_other(tmp_path: Path, family: str) -> None:
    architecture = tiny_architecture(family)
    write_checkpoint(architecture, tmp_path / architecture.id, "cpu", torch.float32)
    catalogue = read_catalogue(write_catalogue({architecture.id: architecture}, tmp_path))
    model = Pool(catalogue, device="cpu").model(architecture.id)
    weights = {name: part for name, part in model.base.components.items() if isinstance(part, torch.nn.Module)}
    assert weights.keys() == architecture.configs.keys()
    assert all(torch.isfinite(values).all() for part in weights.values() for values in part.parameters())


def test_an_interrupted_checkpoint_is_resumed(tmp_path: Path) -> None:
    architecture = tiny_architecture("flux")
    write_checkpoint(architecture, tmp_path, "cpu", torch.float32)
    before = (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    (tmp_path / "transformer" / "done").unlink()
    write_checkpoint(architecture, tmp_path, "cpu", torch.float32)
    assert (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns == before
    assert (tmp_path / "transformer" / "done").exists()
