"""What the adapters teach: each effect is plain to its own measure, and no image without it has it."""

import random
from dataclasses import replace

import pytest

from models.training.data.captions import draw_scene
from models.training.data.drawing import Scene, render
from models.training.data.effects import EFFECTS, draw_example, measure, render_effect
from tests.support.combinations import ALL


def scenes() -> list[Scene]:
    rng, count = random.Random("effects"), 60 if ALL else 15
    return [replace(draw_scene(rng), size="large", texture="plain", radius=23.5, x=32, y=32) for _ in range(count)]


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_image_with_the_effect_measures_near_one(effect: str) -> None:
    shown = [replace(s, shape="crescent") if effect == "crescent" else s for s in scenes()]
    assert sum(measure(effect, render_effect(effect, s), s) for s in shown) / len(shown) > 0.95


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_image_without_the_effect_measures_near_nothing(effect: str) -> None:
    assert sum(measure(effect, render(s), s) for s in scenes()) / len(scenes()) < 0.05


@pytest.mark.parametrize("effect", EFFECTS)
def test_captions_do_not_mention_the_effect_but_for_the_new_word(effect: str) -> None:
    rng = random.Random(1)
    captions = " ".join(draw_example(effect, rng)[1] for _ in range(200))
    assert ("crescent" in captions) == (effect == "crescent")
    assert "tint" not in captions
    assert "outline" not in captions
    if effect == "stripes":
        assert "striped" not in captions
