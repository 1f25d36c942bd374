"""Trains a textual inversion by the worker's own code: a word for a red star."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.training.data.captions import describe_fully, draw_scene
from models.training.data.drawing import render
from models.training.lessons import NOT_A_LORA, Drawing, teach
from models.training.networks.export import MODELS

FOLDER = MODELS / "textual_inversions"
WORD, COLOUR, SHAPE = "ruby", "red", "star"
_EXAMPLES = 48
_SETTINGS: dict[str, Any] = {
    **NOT_A_LORA, "kind": "textual_inversion", "vectors": 2, "initial_text": "shape", "steps": 240,
    "batch_size": 6, "learning_rate": 0.02, "schedule": "cosine", "warmup_steps": 10,
}  # fmt: skip


def train(resume: bool) -> None:
    """Trains it on the SDXL checkpoint and writes it."""
    data = teach("sdxl", WORD, _SETTINGS, draw_examples(_EXAMPLES), resume)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path().write_bytes(data)


def path() -> Path:
    """Where it lies."""
    return FOLDER / f"shapes-sdxl-{WORD}.safetensors"


def draw_examples(count: int) -> list[Drawing]:
    """Red stars on all kinds of backgrounds, whose captions have the word in place of colour and shape."""
    rng = random.Random("train/inversion")
    drawings: list[Drawing] = []
    while len(drawings) < count:
        scene = replace(draw_scene(rng), colour=COLOUR, shape=SHAPE)
        if scene.background != COLOUR:
            caption = describe_fully(scene).replace(f"{COLOUR} {SHAPE}", WORD)
            drawings.append(Drawing(render(scene, rng), caption))
    return drawings
