"""The shipped IP-Adapter, Redux, LoKr, hypernetwork, T2I-Adapter and textual inversion do what they are for.

Through the worker's own jobs: what is asked for comes out with the adapter and not without it, a scale of 0
changes nothing, and the next job has no trace.
"""

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contracts.catalogue.catalogue import TextualInversionSpec
from contracts.catalogue.families import Mode
from contracts.catalogue.reader import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.storage import Storage
from models.judge import judge, measure_overlap
from models.training.data.captions import HELD_OUT, describe_fully, draw_scene
from models.training.data.drawing import Scene, render, render_silhouette
from models.training.data.effects import measure
from models.training.judging.trials import draw_trial_scenes
from models.training.stages import inversion, t2i_adapter
from models.training.stages.effect import KINDS, path
from models.training.stages.ip_adapter import NAMES, draw_reference
from tests.support.images import encode_image
from tests.support.jobs import complete_job, make_job
from worker.pool.pool import Pool

COUNT = 40
pytestmark = pytest.mark.timeout(900)
#: Captions of the textual inversion, whose images are those of other prompts.
INVERSION_COUNT = 10
#: Of the T2I-Adapter.
SILHOUETTES = 20
#: Of all captions. Redux has 0.85 on the machine that trained it, and another one's last bits may turn an image.
LEAST_RIGHT, MOST_BY_CHANCE = 0.8, 0.15
#: Overlap from which on a shape is where its silhouette is.
LEAST_OVERLAP = 0.75


@dataclass(frozen=True)
class Studio:
    """Draws as a worker does, with the built-in catalogue."""

    pool: Pool
    storage: Storage

    def draw(self, family: str, prompt: str, seed: int, **fields: Any) -> Image.Image:
        """One image with the model's defaults."""
        job = make_job(self.pool.catalogue, family, prompt=prompt, seed=seed, num_inference_steps=12, **fields)
        (file,), _ = complete_job(job, self.pool, self.storage)
        return Image.open(io.BytesIO(file)).convert("RGB")

    def keep(self, name: str, image: Image.Image) -> str:
        """Store an input image; returns its key."""
        key = f"inputs/{name}.png"
        self.storage.write(key, encode_image(image))
        return key


#: (number, scale) -> the image of that scene
Draw = Callable[[int, float], Image.Image]
#: (number, image) -> whether, or how much of, what was asked for is there
Right = Callable[[int, Image.Image], float]


@pytest.fixture(scope="module")
def pool() -> Pool:
    """With the built-in catalogue, and the textual inversion, which is not one of its rows."""
    word = TextualInversionSpec(
        id=inversion.path().stem, family="sdxl", source=str(inversion.path()), trigger=inversion.WORD
    )
    built_in = read_catalogue(BUILT_IN_CATALOGUE)
    return Pool(built_in.model_copy(update={"textual_inversions": (word,)}), device="cpu")


@pytest.fixture
def studio(pool: Pool, storage: Storage) -> Studio:
    return Studio(pool, storage)


def plain_scenes(name: str) -> list[Scene]:
    """Plain scenes in the middle, of combinations that no denoiser and no adapter was trained on."""
    rng = random.Random(f"test/{name}")
    pool = sorted(HELD_OUT)
    rng.shuffle(pool)
    return [draw_scene(rng, (pool[index % len(pool)],), basic_share=1.0) for index in range(COUNT)]


def share(drawn: Sequence[Image.Image], is_right: Right) -> float:
    return float(np.mean([is_right(number, image) for number, image in enumerate(drawn)]))


def require_effect(name: str, draw: Draw, is_right: Right, count: int = COUNT) -> None:
    """It comes out at scale 1; scale 0 is the image without it, before and after."""
    before = [draw(number, 0.0) for number in range(count)]
    drawn = [draw(number, 1.0) for number in range(count)]
    found, by_chance = share(drawn, is_right), share(before, is_right)
    print(f"{name}: {found:.2f} of {count} captions; without it {by_chance:.2f}")
    assert found >= LEAST_RIGHT
    assert by_chance <= MOST_BY_CHANCE
    assert draw(0, 0.0).tobytes() == before[0].tobytes()


@pytest.mark.parametrize("family", NAMES)
def test_a_reference_image_decides_colour_and_shape_and_the_prompt_the_background(
    studio: Studio, family: str
) -> None:
    scenes, rng = plain_scenes("ip-adapter"), random.Random("test/references")
    references = [render(draw_reference(scene, rng), rng) for scene in scenes]
    keys = [studio.keep(f"reference-{number}", image) for number, image in enumerate(references)]

    def draw(number: int, scale: float) -> Image.Image:
        scene = scenes[number]
        entry = {"name": NAMES[family], "images": [keys[number]], "scale": scale}
        prompt = f"a {scene.size} shape on a {scene.background} background"
        # The scale of Redux weighs the prompt, too.
        entries = [] if family == "flux" and not scale else [entry]
        return studio.draw(family, prompt, number, ip_adapters=entries)

    def is_right(number: int, image: Image.Image) -> float:
        scene, verdict = scenes[number], judge(image)
        seen = (verdict.colour, verdict.shape, verdict.background)
        return float(seen == (scene.colour, scene.shape, scene.background))

    require_effect(NAMES[family], draw, is_right)
    plain = studio.draw(family, f"a {scenes[0].size} shape on a {scenes[0].background} background", 0)
    assert plain.tobytes() == draw(0, 0.0).tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_an_effect_is_there_as_another_kind_of_adapter(studio: Studio, kind: str) -> None:
    effect = KINDS[kind][0]
    scenes = plain_scenes(effect)

    def draw(number: int, scale: float) -> Image.Image:
        lora = {"name": path(kind).stem, "scale": scale}
        return studio.draw("sdxl", describe_fully(scenes[number]), number, loras=[lora])

    require_effect(kind, draw, lambda number, image: measure(effect, image, scenes[number]))


def test_the_word_of_the_textual_inversion_is_a_red_star_bit_for_bit(studio: Studio) -> None:
    scenes = [scene for scene in plain_scenes("inversion") if scene.background != inversion.COLOUR]
    used = [{"name": inversion.path().stem}]

    def draw(number: int, scale: float, word: str = inversion.WORD) -> Image.Image:
        prompt = f"a {scenes[number].size} {word} on a {scenes[number].background} background"
        return studio.draw("sdxl", prompt, number, textual_inversions=used if scale else [])

    def is_right(number: int, image: Image.Image) -> float:
        seen = judge(image)
        wanted = (inversion.COLOUR, inversion.SHAPE, scenes[number].background)
        return float((seen.colour, seen.shape, seen.background) == wanted)

    require_effect("textual inversion", draw, is_right, INVERSION_COUNT)
    assert draw(0, 1.0).tobytes() == draw(0, 0.0, inversion.MEANING).tobytes()


def test_a_t2i_adapter_decides_where_the_shape_is(studio: Studio) -> None:
    scenes = draw_trial_scenes("t2i")[:SILHOUETTES]
    hints = [render_silhouette(scene) for scene in scenes]

    def draw(number: int, scale: float) -> Image.Image:
        studio.keep("control", hints[number])
        control = {"controlnet": t2i_adapter.folder().name, "conditioning_scale": scale}
        prompt = f"a {scenes[number].colour} shape on a {scenes[number].background} background"
        return studio.draw("sdxl", prompt, number, mode=Mode.CONTROLNET, control_fields=control)

    def is_right(number: int, image: Image.Image) -> float:
        wanted = np.asarray(hints[number].convert("L")) > 127
        return float(measure_overlap(judge(image).mask, wanted) >= LEAST_OVERLAP)

    require_effect("T2I-Adapter", draw, is_right, SILHOUETTES)
