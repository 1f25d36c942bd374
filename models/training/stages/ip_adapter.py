"""Trains the IP-Adapters: a reference image decides the colour, shape and texture that a prompt leaves open.

The background, the size and the place are the prompt's: a reference has a background of its own. For the UNet an
IP-Adapter of the plain kind, for FLUX Redux.
"""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import CLIPVisionModelWithProjection, SiglipVisionModel

from models.training.data.captions import IN_DISTRIBUTION, draw_scene, phrase_position
from models.training.data.drawing import COLOURS, Scene, place, render
from models.training.lessons import NOT_A_LORA, Drawing, teach
from models.training.networks.export import MODELS
from models.training.stages import image_encoder
from models.training.trainees.image_prompts import TrainedIpAdapter
from models.training.trainees.tokens import TrainedRedux
from worker.training.trainees.trainee import Trainee

FOLDER = MODELS / "ip_adapters"
NAMES = {"sdxl": "shapes-sdxl-subject", "flux": "shapes-flux-redux"}
_EXAMPLES = 1200
#: Examples without a reference: what a guided call compares with.
_BARE_SHARE = {"sdxl": 0.08, "flux": 0.0}
#: How often a caption says what the reference shows.
_SAID_SHARE = 0.2
_STEPS = {"sdxl": 400, "flux": 1000}
_SETTINGS: dict[str, Any] = {
    **NOT_A_LORA, "batch_size": 16, "learning_rate": 2e-3, "schedule": "cosine", "warmup_steps": 50,
}  # fmt: skip


def train(family: str, resume: bool) -> None:
    """Trains one and writes it to models/ip_adapters/."""
    drawings = draw_examples(_EXAMPLES, _BARE_SHARE[family])
    settings = {**_SETTINGS, "steps": _STEPS[family]}
    data = teach(family, f"ip-adapter-{family}", settings, drawings, resume, _MAKE[family])
    FOLDER.mkdir(parents=True, exist_ok=True)
    path(family).write_bytes(data)


def path(family: str) -> Path:
    """Where the family's adapter lies."""
    return FOLDER / f"{NAMES[family]}.safetensors"


def draw_examples(count: int, bare_share: float) -> list[Drawing]:
    """Scenes, what captions say of them, and references that show the same shape on another background."""
    rng = random.Random("train/ip-adapter")
    drawings: list[Drawing] = []
    for _ in range(count):
        scene = draw_scene(rng, IN_DISTRIBUTION)
        image = render(scene, rng, 3)
        if rng.random() < bare_share:
            drawings.append(Drawing(image, ""))
        else:
            drawings.append(Drawing(image, describe(scene, rng), render(draw_reference(scene, rng), rng, 3)))
    return drawings


def draw_reference(scene: Scene, rng: random.Random) -> Scene:
    """The same shape, colour and texture, somewhere else on another background."""
    background = rng.choice([colour for colour in COLOURS if colour not in (scene.colour, scene.background)])
    size = rng.choice(("medium", "large"))
    return place(replace(scene, background=background, size=size, position="center"), rng)


def describe(scene: Scene, rng: random.Random) -> str:
    """What a reference does not show, and now and then what it does."""
    words = [value for value in (scene.texture, scene.colour) if value != "plain" and rng.random() < _SAID_SHARE]
    words.append(scene.shape if rng.random() < _SAID_SHARE else "shape")
    ground = f" on a {scene.background} background" if rng.random() < 0.9 else ""
    return f"a {' '.join([scene.size, *words])}{phrase_position(scene.position, rng)}{ground}"


def _make_ip_adapter(unet: Any) -> Trainee:
    encoder = CLIPVisionModelWithProjection.from_pretrained(image_encoder.folder("clip"))
    return TrainedIpAdapter(unet, encoder.float())


def _make_redux(transformer: Any) -> Trainee:
    encoder = SiglipVisionModel.from_pretrained(image_encoder.folder("siglip"))
    return TrainedRedux(transformer, encoder.float())


_MAKE = {"sdxl": _make_ip_adapter, "flux": _make_redux}
