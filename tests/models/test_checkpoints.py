"""The files of the shipped checkpoints: their sizes, their values, and nothing of the machine that made them."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from models.training.networks.export import (
    CHECKPOINTS,
    CONTROLS,
    MODELS,
    checkpoint_folder,
    control_folder,
    forget_origin,
)


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_a_checkpoint_takes_at_most_nine_megabytes(family: str) -> None:
    assert megabytes(checkpoint_folder(family)) <= 9


def test_all_weights_together_take_at_most_sixty_six_megabytes() -> None:
    kinds = ("shapes-*", "controlnets", "loras")
    assert sum(megabytes(folder) for kind in kinds for folder in MODELS.glob(kind)) <= 66


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_all_weights_are_half_precision_and_finite(family: str) -> None:
    folders = [checkpoint_folder(family), *(control_folder(family, control) for control in CONTROLS)]
    for file in (path for folder in folders for path in folder.rglob("*.safetensors")):
        for name, weight in load_file(file).items():
            assert weight.dtype == np.float16, (file, name)
            assert np.isfinite(weight).all(), (file, name)


def test_no_file_names_a_folder_of_the_machine_that_made_it() -> None:
    configurations = sorted(MODELS.glob("**/config.json"))
    assert configurations
    shipped = [path for path in configurations if "training" not in path.parts]
    assert [path for path in shipped if "_name_or_path" in path.read_text(encoding="utf-8")] == []


def test_an_export_drops_the_folder_its_parts_came_from(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"_class_name": "X", "_name_or_path": "/somewhere"}), encoding="utf-8")
    forget_origin([file])
    assert json.loads(file.read_text(encoding="utf-8")) == {"_class_name": "X"}
