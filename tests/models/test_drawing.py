"""The drawings and captions everything is trained and judged on."""

import itertools
import random

import numpy as np

from models.training.data.captions import (
    COMBINATIONS,
    HELD_OUT,
    IN_DISTRIBUTION,
    describe,
    describe_fully,
    find_said,
    training_scenes,
)
from models.training.data.captions import test_scenes as fixed_scenes
from models.training.data.drawing import (
    PALETTE,
    POSITIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    render,
    render_silhouette,
)


def first_scenes(count: int) -> list[Scene]:
    return list(itertools.islice(training_scenes("latents/0"), count))


def test_a_stage_sees_the_same_scenes_every_time() -> None:
    assert first_scenes(20) == first_scenes(20)


def test_no_training_scene_is_a_held_out_combination() -> None:
    seen = {(s.shape, s.colour, s.background) for s in first_scenes(3000)}
    assert not seen & HELD_OUT


def test_training_reaches_every_combination_that_is_not_held_out() -> None:
    seen = {(s.shape, s.colour, s.background) for s in first_scenes(6000)}
    assert seen == set(IN_DISTRIBUTION)


def test_one_combination_in_ten_is_held_out_and_every_shape_is_among_them() -> None:
    assert len(HELD_OUT) * 10 == len(COMBINATIONS)
    assert {shape for shape, _, _ in HELD_OUT} == set(SHAPES)


def test_the_vocabulary_is_used_whole() -> None:
    scenes = first_scenes(2000)
    assert {s.size for s in scenes} == set(SIZES)
    assert {s.position for s in scenes} == set(POSITIONS)
    assert {s.texture for s in scenes} == set(TEXTURES)


def test_test_scenes_are_fixed_and_share_no_drawing_with_training() -> None:
    scenes = fixed_scenes(held_out=False, count=100)
    assert scenes == fixed_scenes(held_out=False, count=100)
    assert not set(scenes) & set(first_scenes(3000))


def test_held_out_test_scenes_are_held_out() -> None:
    scenes = fixed_scenes(held_out=True, count=60)
    assert {(s.shape, s.colour, s.background) for s in scenes} == HELD_OUT


def test_the_test_caption_says_everything_that_is_no_default() -> None:
    scene = Scene("star", "red", "blue", "medium", "top left", "striped")
    assert describe_fully(scene) == "a medium striped red star at the top left on a blue background"
    assert describe_fully(Scene("star", "red", "blue")) == "a medium red star on a blue background"


def test_a_caption_never_contradicts_its_scene() -> None:
    rng = random.Random(1)
    for scene in first_scenes(300):
        said = find_said(describe(scene, rng), scene)
        assert said["colour"] == scene.colour
        assert said["shape"] == scene.shape
        assert said["texture"] == scene.texture or scene.texture == "plain"
        assert said["position"] == scene.position or scene.position == "center"
        assert said["size"] == scene.size or scene.size != "small"


def test_an_image_holds_the_two_named_colours() -> None:
    pixels = np.asarray(render(Scene("circle", "red", "blue")))
    assert tuple(pixels[32, 32]) == PALETTE["red"]
    assert tuple(pixels[2, 2]) == PALETTE["blue"]


def test_the_silhouette_covers_the_shape_and_nothing_else() -> None:
    scene = Scene("square", "red", "blue")
    white = np.asarray(render_silhouette(scene).convert("L")) > 127
    red = np.asarray(render(scene))[..., 0] > 127
    assert (white == red).all()
