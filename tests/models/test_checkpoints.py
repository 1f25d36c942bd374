"""The shipped checkpoints, through the real pipelines: they draw what they are told, and stay small.

The figures in the model cards come from `python -m models.training judge`; here a few pictures guard them.
"""

import json
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from models.training.captions import draw_scene
from models.training.drawing import Scene, place
from models.training.export import (
    CONTROLS,
    FAMILIES,
    MODELS,
    checkpoint_folder,
    control_folder,
    forget_origin,
)
from models.training.figures import Sample, open_painter, sample

#: Of twenty plain shapes in the middle; the cards have the figures over all captions.
LEAST_RIGHT_SHAPES = 0.9
COUNT = 20


def basic_scenes(name: str) -> list[Scene]:
    rng = random.Random(f"test/checkpoints/{name}")
    scenes = (draw_scene(rng) for _ in range(COUNT))
    return [replace(s, size=rng.choice(("medium", "large")), position="center", texture="plain") for s in scenes]


@cache
def drawn(family: str) -> list[Sample]:
    return sample(open_painter(family), basic_scenes(family), family)


def share(samples: list[Sample], attribute: str) -> float:
    return sum(s.right(attribute) for s in samples) / len(samples)


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attribute", ["colour", "background"])
def test_colours_are_the_ones_asked_for(family: str, attribute: str) -> None:
    assert share(drawn(family), attribute) >= 0.95


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_are_the_ones_asked_for(family: str) -> None:
    assert share(drawn(family), "shape") >= LEAST_RIGHT_SHAPES


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_picture(family: str) -> None:
    paint = open_painter(family)
    first, second = (paint(["a red circle on a blue background"], [7])[0] for _ in range(2))
    assert np.array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_takes_nine_megabytes_at_most(family: str) -> None:
    assert megabytes(checkpoint_folder(family)) <= 9


def test_all_weights_together_take_forty_five_megabytes_at_most() -> None:
    kinds = ("shapes-*", "controlnets", "loras")
    assert sum(megabytes(folder) for kind in kinds for folder in MODELS.glob(kind)) <= 45


@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights_are_half_precision_and_finite(family: str) -> None:
    folders = [checkpoint_folder(family), *(control_folder(family, control) for control in CONTROLS)]
    for file in (path for folder in folders for path in folder.rglob("*.safetensors")):
        for name, weight in load_file(file).items():
            assert weight.dtype == np.float16, (file, name)
            assert np.isfinite(weight).all(), (file, name)


def off_centre_scenes() -> list[Scene]:
    rng = random.Random("test/checkpoints/off-centre")
    corners = ("left", "right", "top", "bottom")
    return [
        place(replace(draw_scene(rng), size="medium", position=rng.choice(corners), texture="plain"), rng)
        for _ in range(COUNT)
    ]


def test_leaving_out_the_t5_of_sd3_shows_in_the_positions() -> None:
    scenes = off_centre_scenes()
    with_t5, without = (sample(open_painter("sd3", off), scenes, "sd3") for off in (False, True))
    assert share(with_t5, "position") >= 0.95
    assert share(without, "position") <= 0.5
    assert share(without, "background") >= 0.9


def test_no_file_of_ours_names_a_folder_of_the_machine_that_made_it() -> None:
    configurations = sorted(MODELS.glob("**/config.json"))
    assert configurations
    shipped = [path for path in configurations if "training" not in path.parts]
    assert [path for path in shipped if "_name_or_path" in path.read_text(encoding="utf-8")] == []


def test_an_export_forgets_where_its_parts_came_from(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"_class_name": "X", "_name_or_path": "/somewhere"}), encoding="utf-8")
    forget_origin([file])
    assert json.loads(file.read_text(encoding="utf-8")) == {"_class_name": "X"}
