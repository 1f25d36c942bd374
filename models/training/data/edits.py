"""What an edit model learns from: a scene, an instruction and the scene that it asks for. Knows no pixels.

An edit changes one attribute; what it does not name stays, the exact place, radius and tint too. As with captions,
combinations that are held out are in no scene of the training split.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from models.training.data.captions import COMBINATIONS, HELD_OUT, IN_DISTRIBUTION, Combination, draw_scene
from models.training.data.drawing import COLOURS, POSITIONS, SHAPES, SIZES, Scene, place

#: What is said for each attribute; {shape} is that of the scene before.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "colour": ("make it {new}", "make the {shape} {new}"),
    "background": ("make the background {new}", "put it on a {new} background"),
    "shape": ("turn it into a {new}", "make it a {new}", "turn the {shape} into a {new}"),
    "position": ("move it to the {new}", "move the {shape} to the {new}"),
    "size": ("make it {new}", "make the {shape} {new}"),
}
KINDS = tuple(TEMPLATES)
_COMPARATIVES = {1: "larger", -1: "smaller"}


@dataclass(frozen=True)
class Edit:
    """`attribute` is the one that differs between the scenes; `seed` draws the same tints for both."""

    attribute: str
    instruction: str
    before: Scene
    after: Scene
    seed: int


def draw_edit(rng: random.Random, combinations: tuple[Combination, ...] = IN_DISTRIBUTION) -> Edit:
    """One edit; `combinations` holds those of the scene before and of the scene after."""
    while True:
        scene, attribute, seed = draw_scene(rng, combinations), rng.choice(KINDS), rng.getrandbits(32)
        choices = _choices(scene, attribute, set(combinations))
        if not choices:
            continue
        new = rng.choice(choices)
        said = _COMPARATIVES[SIZES.index(new) - SIZES.index(scene.size)] if attribute == "size" else new
        instruction = rng.choice(TEMPLATES[attribute]).format(shape=scene.shape, new=said)
        before, after = (place(wanted, random.Random(seed)) for wanted in (scene, _change(scene, attribute, new)))
        return Edit(attribute, instruction, before, after, seed)


def training_edits(stage: str) -> Iterator[Edit]:
    """Endless edits of one training stage, the same ones every time."""
    rng = random.Random(f"train/{stage}")
    while True:
        yield draw_edit(rng)


def fixed_edits(count: int) -> list[Edit]:
    """The fixed test edits, in turn one of each kind; in some a combination is one that training never shows."""
    edits: list[Edit] = []
    for index in range(count):
        rng = random.Random(f"test/edits/{index}")
        edit = draw_edit(rng, COMBINATIONS)
        while edit.attribute != KINDS[index % len(KINDS)]:
            edit = draw_edit(rng, COMBINATIONS)
        edits.append(edit)
    return edits


def is_held_out(edit: Edit) -> bool:
    """Whether the scene before, or after, is one that training never shows."""
    return any(_combination(scene) in HELD_OUT for scene in (edit.before, edit.after))


def _choices(scene: Scene, attribute: str, combinations: set[Combination]) -> list[str]:
    """What the attribute may become, so that the scene after is one that may be drawn."""
    if attribute == "position":
        return [] if scene.size == "large" else [name for name in POSITIONS if name != scene.position]
    if attribute == "size":
        return [size for size in _next_sizes(scene) if _has_room(scene, size)]
    values = SHAPES if attribute == "shape" else COLOURS
    afters = {value: _change(scene, attribute, value) for value in values}
    return [value for value, after in afters.items() if after != scene and _combination(after) in combinations]


def _change(scene: Scene, attribute: str, value: str) -> Scene:
    changes: dict[str, Any] = {attribute: value}
    return replace(scene, **changes)


def _combination(scene: Scene) -> Combination:
    return scene.shape, scene.colour, scene.background


def _next_sizes(scene: Scene) -> list[str]:
    index = SIZES.index(scene.size)
    return [SIZES[other] for other in (index - 1, index + 1) if 0 <= other < len(SIZES)]


def _has_room(scene: Scene, size: str) -> bool:
    """A large shape can only be in the middle; a small one has no room for a texture."""
    return (size != "large" or scene.position == "center") and (size != "small" or scene.texture == "plain")
