"""What eight drawn pictures teach comes out when it is named, and other prompts keep their images."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.requests.entry_parameters import LoraParameters, TextualInversionParameters
from contracts.requests.training.parameters import TrainedParameters, TrainingParameters
from contracts.storage import Storage
from models.judge import judge
from models.training.data.captions import describe_fully
from models.training.data.drawing import COLOURS, SHAPES, Scene, place, render
from tests.support.images import encode_image
from tests.support.jobs import complete_job
from tests.support.parameters import parameters
from tests.worker.training.quality.lessons import train
from worker.adapters.files import LoraFiles
from worker.pool.pool import Pool

#: The one shape that no checkpoint knows.
NEW_SHAPE = "crescent"
#: Names what is taught.
WORD = "zork"
PICTURES, ASKED = 8, 20
SAMPLE = parameters(num_inference_steps=12, batchable=False)


def caption(scene: Scene) -> str:
    """What a picture to learn from is called."""
    return describe_fully(replace(scene, shape=WORD))


def scenes(shapes: Sequence[str], count: int, seed: int) -> list[Scene]:
    """Large scenes of these shapes in turn, each in colours of its own."""
    rng = random.Random(seed)
    pairs = [(one, other) for one in COLOURS for other in COLOURS if one != other]
    rng.shuffle(pairs)
    return [
        place(Scene(shapes[index % len(shapes)], *pair, size="large"), rng)
        for index, pair in enumerate(pairs[:count])
    ]


@dataclass(frozen=True)
class Lesson:
    """How well something was learnt.

    Attributes:
        named: share of the images whose prompts have the word and that show its shape.
        kept: share of the images of other shapes that show theirs.
        change: of these images against those without what was trained: mean of the differences, 0 to 255.
    """

    named: float
    kept: float
    change: float


class School:
    """Trains on one model, and asks it for images."""

    def __init__(self, pool: Pool, storage: Storage) -> None:
        self._pool, self._storage = pool, storage

    @cached_property
    def _before(self) -> list[Image.Image]:
        return self._others(None)

    def teach(self, shape: str, settings: dict[str, Any], class_prompts: Sequence[str] = ()) -> Lesson:
        """Teach the word for a shape, and measure what became of it."""
        images = []
        for index, scene in enumerate(scenes([shape], PICTURES, seed=1)):
            key = f"inputs/{index}.png"
            self._storage.write(key, encode_image(render(scene)))
            images.append({"image": key, "caption": caption(scene)})
        training = TrainingParameters.model_validate(
            {
                "task": "training", "model": "shapes-sdxl", "name": WORD, "images": images,
                "settings": {"rank": 16, "alpha": 16, "resolution": 64, "seed": 7, **settings},
                "snapshot_every_steps": 1000, "checkpoint_every_steps": 1000, "sample": SAMPLE.model_dump(),
            }
        )  # fmt: skip
        trained = self._train(training, class_prompts)
        asked = [caption(scene) for scene in scenes([shape], 2 * ASKED, seed=1)[-ASKED:]]
        named = [judge(image).shape == shape for image in self._draw(asked, trained)]
        after = self._others(trained)
        kept = [judge(image).shape == scene.shape for image, scene in zip(after, self._scenes, strict=True)]
        pairs = zip(after, self._before, strict=True)
        change = [float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean()) for one, other in pairs]
        return Lesson(float(np.mean(named)), float(np.mean(kept)), float(np.mean(change)))

    def _train(self, training: TrainingParameters, class_prompts: Sequence[str]) -> TrainedParameters:
        prior = [self._make(prompt, 1000 + index, None) for index, prompt in enumerate(class_prompts)]
        key, sha256 = train(self._pool, self._storage, training, prior)
        if training.settings.kind == "lora":
            return LoraParameters(name=WORD, key=key, sha256=sha256, values=1)
        vectors = training.settings.vectors
        return TextualInversionParameters(name=WORD, words=(WORD,), key=key, sha256=sha256, vectors=vectors)

    @property
    def _scenes(self) -> list[Scene]:
        return scenes(SHAPES, ASKED, seed=2)

    def _others(self, trained: TrainedParameters | None) -> list[Image.Image]:
        return self._draw([describe_fully(scene) for scene in self._scenes], trained)

    def _draw(self, prompts: Sequence[str], trained: TrainedParameters | None) -> list[Image.Image]:
        return [self._make(prompt, seed, trained) for seed, prompt in enumerate(prompts)]

    def _make(self, prompt: str, seed: int, trained: TrainedParameters | None) -> Image.Image:
        changes: dict[str, Any] = {"prompt": prompt, "seed": seed}
        if isinstance(trained, LoraParameters) or (trained is not None and WORD in prompt):
            field = "loras" if isinstance(trained, LoraParameters) else "textual_inversions"
            changes[field] = (trained,)
        (file,), _ = complete_job(SAMPLE.model_copy(update=changes), self._pool, self._storage)
        return Image.open(io.BytesIO(file)).convert("RGB")


@pytest.fixture
def school(shipped: Catalogue, storage: Storage, tmp_path: Path) -> School:
    return School(Pool(shipped, device="cpu", lora_files=LoraFiles(shipped, storage, tmp_path / "l")), storage)


def test_a_lora_draws_a_new_shape_and_prior_preservation_keeps_the_known_ones(school: School) -> None:
    settings = {
        "steps": 150, "batch_size": 4, "learning_rate": 0.002, "targets": "attention_and_feed_forward",
    }  # fmt: skip
    without = school.teach(NEW_SHAPE, settings)
    preserved = school.teach(NEW_SHAPE, settings, ["a shape on a background"] * ASKED)
    print(f"LoRA: {without}; with prior preservation: {preserved}")
    assert min(without.named, preserved.named) >= 0.9
    assert preserved.kept > without.kept
    assert preserved.change < without.change


def test_a_textual_inversion_names_a_known_shape_and_changes_no_other_prompt(school: School) -> None:
    settings = {
        "kind": "textual_inversion", "vectors": 2, "initial_text": "shape", "steps": 250, "batch_size": 4,
        "learning_rate": 0.02,
    }  # fmt: skip
    learnt = school.teach("star", settings)
    print(f"textual inversion: {learnt}")
    assert learnt.named >= 0.9
    assert learnt.change == 0
