"""The judge's own accuracy: every figure in a model card rests on it."""

import itertools
import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from models.judge import ATTRIBUTES, Verdict, judge, measure_overlap
from models.training.data.captions import COMBINATIONS, training_scenes
from models.training.data.drawing import Scene, render, render_silhouette
from tests.support.combinations import ALL

#: One mistake among the drawn images and two among the blurred ones are allowed; more images say it more finely.
IMAGES, BLURRED = (600, 150) if ALL else (150, 100)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return list(itertools.islice(training_scenes("judge's own test", COMBINATIONS), IMAGES))


@pytest.fixture(scope="module")
def verdicts(scenes: list[Scene]) -> list[Verdict]:
    """Of each scene, as it is drawn."""
    rng = random.Random(3)
    return [judge(render(scene, rng)) for scene in scenes]


@pytest.fixture(scope="module")
def simple(scenes: list[Scene]) -> list[Scene]:
    """Scenes that still show their attributes when blurred."""
    return [scene for scene in scenes if scene.size != "small" and scene.texture == "plain"][:BLURRED]


@pytest.fixture(scope="module")
def blurred_verdicts(simple: list[Scene]) -> list[Verdict]:
    return [judge(render(scene).filter(ImageFilter.GaussianBlur(0.8))) for scene in simple]


def share_right(scenes: list[Scene], verdicts: list[Verdict], attribute: str) -> float:
    right = sum(
        bool(getattr(v, attribute) == getattr(s, attribute)) for v, s in zip(verdicts, scenes, strict=True)
    )
    return right / len(scenes)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_the_judge_is_right_about_drawn_images(
    scenes: list[Scene], verdicts: list[Verdict], attribute: str
) -> None:
    assert share_right(scenes, verdicts, attribute) >= 0.99


@pytest.mark.parametrize("attribute", ["colour", "background", "shape", "position"])
def test_a_little_blur_does_not_mislead_it(
    simple: list[Scene], blurred_verdicts: list[Verdict], attribute: str
) -> None:
    assert share_right(simple, blurred_verdicts, attribute) >= 0.98


def test_a_larger_image_is_judged_like_a_small_one() -> None:
    image = render(Scene("star", "yellow", "purple", "large", radius=24)).resize((256, 256))
    verdict = judge(image)
    assert (verdict.shape, verdict.size, verdict.colour) == ("star", "large", "yellow")


def test_an_empty_image_shows_no_shape() -> None:
    verdict = judge(Image.new("RGB", (64, 64), (40, 70, 220)))
    assert (verdict.background, verdict.shape, verdict.colour) == ("blue", "", "")
    assert not verdict.mask.any()


def test_the_mask_is_the_silhouette() -> None:
    scene = Scene("cross", "green", "white", "large", radius=23)
    silhouette = np.asarray(render_silhouette(scene).convert("L")) > 127
    assert measure_overlap(judge(render(scene)).mask, silhouette) > 0.95
