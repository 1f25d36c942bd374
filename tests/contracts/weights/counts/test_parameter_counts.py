"""Numbers of parameters, from headers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from contracts.errors import CatalogueError
from contracts.weights.checkpoint_files import AnyTensor, read_tensors
from contracts.weights.counts import parameter_counts
from contracts.weights.counts.parameter_counts import ParameterCount, count_values


def test_variants_and_shards_are_counted_once(tmp_path: Path) -> None:
    folder = tmp_path / "unet"
    folder.mkdir()
    for name, values in {
        "model.safetensors": 10,
        "model.fp16.safetensors": 20,
    }.items():
        save_file({"weight": torch.zeros(values)}, folder / name)
    assert count_values(tmp_path)["unet"].values == 10
    assert count_values(tmp_path, "fp16")["unet"].values == 20
    shards = tmp_path / "sharded" / "transformer"
    shards.mkdir(parents=True)
    for number in (1, 2):
        for variant in ("", ".fp16"):
            file = shards / f"model{variant}-0000{number}-of-00002.safetensors"
            save_file({f"weight{number}": torch.zeros(5)}, file)
    assert count_values(tmp_path / "sharded")["transformer"].values == 10
    assert count_values(tmp_path / "sharded", "fp16")["transformer"].values == 10


def test_a_file_that_is_not_a_safetensors_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CatalogueError, match=r"model\.safetensors is not a safetensors file"):
        count_values(tmp_path / "model.safetensors")


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def count(file: Path) -> Mapping[str, AnyTensor]:
        names.append(file.name)
        return read_tensors(file)

    monkeypatch.setattr(parameter_counts, "read_tensors", count)
    file = tmp_path / "unet" / "model.safetensors"
    file.parent.mkdir()
    save_file({"weight": torch.zeros(4)}, file)
    assert [count_values(tmp_path)["unet"].values for _ in range(2)] == [4, 4]
    assert len(names) == 1
    save_file({"weight": torch.zeros(6)}, file)
    assert count_values(tmp_path)["unet"].values == 6
    assert len(names) == 2


def test_blocks_and_other_tensors_are_counted_apart() -> None:
    tensors = [
        ("pos_embed.weight", 5),
        ("blocks.0.attn.weight", 10),
        ("blocks.0.attn.bias", 1),
        ("blocks.1.attn.weight", 20),
        ("blocks.1.mlp.weight", 4),
    ]
    assert ParameterCount.of(tensors) == ParameterCount(values=40, block_values=24, loose_values=5, leaf_values=20)
