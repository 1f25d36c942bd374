"""The shipped checkpoints generate what their prompts say.

The figures in the model cards come from `python -m models.training judge`; here a few images guard them.
"""

import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from models.training.data.captions import draw_scene
from models.training.data.drawing import Scene, place
from models.training.judging.figures import Sample, open_generate, sample
from models.training.networks.export import FAMILIES

#: Of twenty plain shapes in the middle; the cards have the figures over all captions.
LEAST_RIGHT_SHAPES = 0.9
COUNT = 20


def basic_scenes(name: str) -> list[Scene]:
    rng = random.Random(f"test/checkpoints/{name}")
    scenes = (draw_scene(rng) for _ in range(COUNT))
    return [replace(s, size=rng.choice(("medium", "large")), position="center", texture="plain") for s in scenes]


@cache
def generated(family: str) -> list[Sample]:
    return sample(open_generate(family), basic_scenes(family), family)


def share(samples: list[Sample], attribute: str) -> float:
    return sum(s.right(attribute) for s in samples) / len(samples)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attribute", ["colour", "background"])
def test_colours_are_the_ones_asked_for(family: str, attribute: str) -> None:
    assert share(generated(family), attribute) >= 0.95


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_are_the_ones_asked_for(family: str) -> None:
    assert share(generated(family), "shape") >= LEAST_RIGHT_SHAPES


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_image(family: str) -> None:
    generate = open_generate(family)
    first, second = (generate(["a red circle on a blue background"], [7])[0] for _ in range(2))
    assert np.array_equal(np.asarray(first), np.asarray(second))


def off_centre_scenes() -> list[Scene]:
    rng = random.Random("test/checkpoints/off-centre")
    corners = ("left", "right", "top", "bottom")
    return [
        place(replace(draw_scene(rng), size="medium", position=rng.choice(corners), texture="plain"), rng)
        for _ in range(COUNT)
    ]


def test_leaving_out_the_t5_of_sd3_shows_in_the_positions() -> None:
    scenes = off_centre_scenes()
    with_t5, without = (sample(open_generate("sd3", off), scenes, "sd3") for off in (False, True))
    assert share(with_t5, "position") >= 0.95
    assert share(without, "position") <= 0.5
    assert share(without, "background") >= 0.9
