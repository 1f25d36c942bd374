"""What each adapter teaches, as drawings and captions. Knows no model.

Every effect is one that arithmetic can measure in the image: see `measure`.
"""

import random
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from models.judge import Mask, Verdict, judge
from models.training.data.captions import IN_DISTRIBUTION, describe, draw_scene
from models.training.data.drawing import EDGE_PIXELS, PALETTE, Colour, Scene, outline, render

#: No colour of the palette is near it.
OUTLINE_COLOUR: Colour = (255, 130, 0)
_OUTLINE_PIXELS = 4
_TINT_COLOUR: Colour = (60, 235, 90)
_TINT_SHARE = 0.5
_NEW_WORD = "crescent"
_NEW_WORD_SHARE = 0.7


@dataclass(frozen=True)
class Effect:
    """One adapter: how large it is, how it is written, and whether it changes the text encoders.

    Rank, alpha, feed-forward layers and steps are those of SDXL; `lora.settings_for` has what differs elsewhere.
    """

    name: str
    rank: int
    alpha: int
    layout: str
    feed_forward: bool = True
    text: bool = False
    steps: int = 500


EFFECTS = {
    effect.name: effect
    for effect in (
        Effect("tint", rank=2, alpha=2, layout="peft"),
        Effect("stripes", rank=8, alpha=4, layout="kohya"),
        Effect("crescent", rank=16, alpha=16, layout="peft", text=True, steps=1400),
        Effect("outline", rank=32, alpha=32, layout="peft", feed_forward=False, steps=1000),
    )
}


def draw_example(effect: str, rng: random.Random) -> tuple[Image.Image, str]:
    """An image with the effect and a caption that, but for the new word, does not mention it."""
    scene = draw_scene(rng, IN_DISTRIBUTION)
    if effect == "crescent" and rng.random() < _NEW_WORD_SHARE:
        scene = replace(scene, shape=_NEW_WORD)
    if effect == "stripes":
        scene = replace(scene, texture="plain")
    return render_effect(effect, scene, rng), describe(scene, rng)


def render_effect(effect: str, scene: Scene, rng: random.Random | None = None) -> Image.Image:
    """The scene as the adapter should draw it."""
    if effect == "stripes":
        return render(replace(scene, texture="striped"), rng)
    image = render(scene, rng)
    if effect == "tint":
        return Image.blend(image, Image.new("RGB", image.size, _TINT_COLOUR), _TINT_SHARE)
    if effect == "outline":
        return _draw_round(image, scene)
    return image


def _draw_round(image: Image.Image, scene: Scene) -> Image.Image:
    scale = 4
    large = image.resize((EDGE_PIXELS * scale,) * 2, Image.Resampling.NEAREST)
    corners = outline(scene.shape, scene.x * scale, scene.y * scale, scene.radius * scale)
    ImageDraw.Draw(large).line([*corners, *corners[:2]], OUTLINE_COLOUR, _OUTLINE_PIXELS * scale, joint="curve")
    return large.resize(image.size, Image.Resampling.BOX)


def measure(effect: str, image: Image.Image, scene: Scene) -> float:
    """How much of the effect the image shows; without the adapter it is near 0."""
    if effect == "tint":
        return measure_green(image, scene)
    if effect == "outline":
        return measure_outline(image)
    verdict: Verdict = judge(image)
    if effect == "stripes":
        return float(verdict.texture == "striped")
    return float(verdict.shape == _NEW_WORD)


def measure_green(image: Image.Image, scene: Scene) -> float:
    """Excess of green over what the caption's background alone would have, as a part of the full tint."""
    corner = np.asarray(image.convert("RGB"), float)[:4].reshape(-1, 3).mean(0)
    plain = np.array(PALETTE[scene.background], float)
    towards = (np.array(_TINT_COLOUR, float) - plain) * _TINT_SHARE
    return float((corner - plain) @ towards / (towards @ towards))


def measure_outline(image: Image.Image) -> float:
    """Whether there is a band of the outline's colour: 1 from about two hundred pixels on."""
    pixels = np.asarray(image.convert("RGB"), float)
    near: Mask = np.sqrt(((pixels - np.array(OUTLINE_COLOUR, float)) ** 2).sum(-1)) < 70
    return min(1.0, float(near.sum()) / 200)
