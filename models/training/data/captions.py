"""Which scenes exist, which are held out of training, and what is said about them. Knows no pixels.

What a caption leaves out is a default: no position word means the middle, no texture word means plain,
no size word means medium or large. Every random choice hangs on a split's name and a number, so that no
caption of the test split shares its seed or its id with one of the training split.
"""

import random
from collections.abc import Iterator

from models.training.data.drawing import COLOURS, POSITIONS, SHAPES, SIZES, TEXTURES, Scene, place

#: (shape, colour, background)
Combination = tuple[str, str, str]

COMBINATIONS: tuple[Combination, ...] = tuple(
    (shape, colour, background)
    for shape in SHAPES
    for colour in COLOURS
    for background in COLOURS
    if colour != background
)
#: One in ten, never seen with its caption by a denoiser; text encoders and autoencoder may see them.
HELD_OUT: frozenset[Combination] = frozenset(random.Random(2024).sample(COMBINATIONS, 28))
IN_DISTRIBUTION: tuple[Combination, ...] = tuple(c for c in COMBINATIONS if c not in HELD_OUT)

#: {thing} is size, texture, colour and shape; {place} a position phrase with its leading blank, or nothing.
_TEMPLATES = {
    "a {thing}{place} on a {background} background": 0.68,
    "{thing}{place}, {background} background": 0.17,
    "a {thing}{place}": 0.15,
}
_PREFIXES = ("", "a photo of ", "a picture of ", "a drawing of ", "an image of ")
_SUFFIXES = ("", ", high quality", ", detailed", ", flat design", ", simple")
_DECORATED_SHARE = 0.2
#: Half of the scenes are the plain ones everybody asks for first.
_BASIC_SHARE = 0.5


def draw_scene(
    rng: random.Random,
    combinations: tuple[Combination, ...] = IN_DISTRIBUTION,
    basic_share: float = _BASIC_SHARE,
) -> Scene:
    """One scene: `basic_share` of them plain, centred, medium or large; the others anything."""
    shape, colour, background = rng.choice(combinations)
    if rng.random() < basic_share:
        scene = Scene(shape, colour, background, size=rng.choice(("medium", "large")))
    else:
        size = rng.choice(("small", "medium", "medium", "large"))
        position = "center" if size == "large" else rng.choice(tuple(POSITIONS))
        texture = "plain" if size == "small" else rng.choice(TEXTURES)  # no room for a period in a small one
        scene = Scene(shape, colour, background, size, position, texture)
    return place(scene, rng)


def training_scenes(
    stage: str,
    combinations: tuple[Combination, ...] = IN_DISTRIBUTION,
    basic_share: float = _BASIC_SHARE,
) -> Iterator[Scene]:
    """Endless scenes of one training stage, the same ones every time."""
    rng = random.Random(f"train/{stage}")
    while True:
        yield draw_scene(rng, combinations, basic_share)


def test_scenes(held_out: bool, count: int) -> list[Scene]:
    """The fixed test scenes of one part: each has its own seed, and all combinations get their turn."""
    part = "held-out" if held_out else "in-distribution"
    pool = sorted(HELD_OUT if held_out else IN_DISTRIBUTION)
    random.Random(f"test/{part}").shuffle(pool)
    scenes = []
    for index in range(count):
        rng = random.Random(f"test/{part}/{index}")
        scenes.append(draw_scene(rng, (pool[index % len(pool)],)))
    return scenes


def phrase_position(position: str, rng: random.Random) -> str:
    """`top left` becomes ` at the top left` or ` in the top left`; the middle mostly goes unsaid."""
    if position == "center":
        return rng.choice(("", "", "", "", " in the center", " in the middle"))
    return rng.choice((" at the ", " in the ", " on the ")) + position


def phrase_thing(scene: Scene, rng: random.Random, size_share: float = 0.6) -> str:
    """Size, texture, colour and shape, the first two where they must be said or happen to be."""
    words = [scene.colour, scene.shape]
    if scene.texture != "plain" or rng.random() < 0.08:
        words.insert(0, scene.texture)
    if scene.size == "small" or rng.random() < size_share:
        words.insert(0, scene.size)
    return " ".join(words)


def describe(scene: Scene, rng: random.Random) -> str:
    """A caption a person might write, with a fifth of them decorated."""
    template = rng.choices(tuple(_TEMPLATES), tuple(_TEMPLATES.values()))[0]
    caption = template.format(
        thing=phrase_thing(scene, rng),
        place=phrase_position(scene.position, rng),
        background=scene.background,
    )
    return decorate(caption, rng) if rng.random() < _DECORATED_SHARE else caption


def decorate(caption: str, rng: random.Random) -> str:
    """The fluff people put around a prompt."""
    return rng.choice(_PREFIXES) + caption + rng.choice(_SUFFIXES)


def describe_fully(scene: Scene) -> str:
    """The caption of the test: everything that is not a default is said once, and the size always."""
    texture = "" if scene.texture == "plain" else f"{scene.texture} "
    where = "" if scene.position == "center" else f" at the {scene.position}"
    thing = f"{scene.size} {texture}{scene.colour} {scene.shape}"
    return f"a {thing}{where} on a {scene.background} background"


def describe_partly(scene: Scene, rng: random.Random) -> str:
    """A caption that leaves out more than describe() would, down to a single word."""
    colour, shape = rng.choice(((True, True), (True, False), (False, True)))
    said = [scene.colour] * colour + ([scene.shape] if shape else rng.choice(([], ["shape"])))
    if scene.texture != "plain" and rng.random() < 0.7:
        said.insert(0, scene.texture)
    if rng.random() < 0.5:
        said.insert(0, scene.size)
    article = rng.choice(("a ", ""))
    place = phrase_position(scene.position, rng) if rng.random() < 0.6 else ""
    ground = rng.choice(("", f" on a {scene.background} background", f", {scene.background} background"))
    return article + " ".join(said) + place + ground


def find_said(caption: str, scene: Scene) -> dict[str, str]:
    """What a caption of this scene says of each attribute; nothing is an empty string."""
    spoken = set(caption.replace(",", " ").split())
    middle = scene.position == "center" and bool(spoken & {"center", "middle"})
    said = {name: getattr(scene, name) for name in ("colour", "shape", "size", "texture")}
    found = {name: value if value in spoken else "" for name, value in said.items()}
    ground = f"{scene.background} background" in caption
    place = middle or (scene.position != "center" and f" {scene.position}" in caption)
    return {**found, "background": scene.background * ground, "position": scene.position * place}


def words() -> set[str]:
    """Every word a caption may hold: what both tokenizers keep whole."""
    fluff = " ".join((*_TEMPLATES, *_PREFIXES, *_SUFFIXES, "at the in on of center middle"))
    plain = fluff.replace(",", " ").replace("{thing}", " ").replace("{place}", " ").replace("{background}", " ")
    spoken = " ".join((*SHAPES, *COLOURS, *SIZES, *TEXTURES, *POSITIONS))
    return set(f"{plain} {spoken}".split())
