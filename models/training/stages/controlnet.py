"""Trains a ControlNet for a frozen denoiser: silhouettes, or contours as a Canny detector draws them.

Captions say neither size nor place, and often not even the shape: what they leave open, the control decides.
The training itself is the worker's, from the exported checkpoint.
"""

import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch

from models.training.data.captions import IN_DISTRIBUTION, draw_scene
from models.training.data.drawing import EDGE_PIXELS, Scene, place, render, render_edges, render_silhouette
from models.training.lessons import Drawing, teach
from models.training.loop import RUNS
from models.training.networks.export import checkpoint_folder
from models.training.stages import inheritance
from worker.checkpoints.controls.controlnets import load_controlnet
from worker.families import get_family
from worker.training.trainees.controlnet import UNetControlNet
from worker.training.trainees.trainee import Trainee

_SHAPE_SAID_SHARE = 0.6
_EMPTY_SHARE = 0.1
DRAW = {"silhouette": render_silhouette, "canny": render_edges}
_PAIRS = 2000
#: Where the ControlNet begins as another one.
_FEWER_PAIRS = {"sd15": 500}
_SETTINGS = {
    "kind": "controlnet", "rank": 1, "alpha": 1, "batch_size": 24, "learning_rate": 1e-3, "schedule": "cosine",
    "warmup_steps": 50,
}  # fmt: skip
SETTINGS = {
    "sdxl": {**_SETTINGS, "steps": 900},
    "sd3": {**_SETTINGS, "steps": 1500},
    "flux": {**_SETTINGS, "steps": 4500},
    "sd15": {**_SETTINGS, "steps": 80, "batch_size": 16, "warmup_steps": 10, "learning_rate": 3e-4},
}


def train(family: str, kind: str, resume: bool) -> None:
    """Trains one ControlNet and writes it into its run folder."""
    pairs = draw_pairs(kind, f"train/pairs/{kind}", _FEWER_PAIRS.get(family, _PAIRS))
    begin = partial(_inherited, kind) if family == "sd15" else None
    data = teach(family, f"control-{family}-{kind}", SETTINGS[family], pairs, resume, begin)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "control.safetensors"
        file.write_bytes(data)
        control = load_controlnet(get_family(family), file, torch.float32, load_denoiser(family))
    control.save_pretrained(folder(family, kind))


def _inherited(kind: str, unet: Any) -> Trainee:
    """The ControlNet of Stable Diffusion 1 begins as that of SDXL, as its UNet does."""
    return UNetControlNet(unet, inheritance.build_control(kind, unet))


def load_denoiser(family: str) -> Any:
    """The exported checkpoint's, in float32."""
    row = get_family(family)
    kind_of_model = getattr(diffusers, row.denoiser_class)
    return kind_of_model.from_pretrained(
        checkpoint_folder(family), subfolder=row.denoiser, torch_dtype=torch.float32
    )


def folder(family: str, kind: str) -> Path:
    """Where a finished ControlNet lies."""
    return RUNS / f"control-{family}-{kind}" / "model"


def load(family: str, kind: str) -> Any:
    """A finished ControlNet, frozen, in float32."""
    kind_of_model = getattr(diffusers, get_family(family).controlnet)
    return kind_of_model.from_pretrained(folder(family, kind)).eval().requires_grad_(False)


def draw_scenes(seed: str, count: int) -> list[Scene]:
    """Scenes whose shape may be anywhere it fits."""
    rng = random.Random(seed)
    return [scatter(draw_scene(rng, IN_DISTRIBUTION), rng) for _ in range(count)]


def scatter(scene: Scene, rng: random.Random) -> Scene:
    """The scene with its centre anywhere."""
    placed = place(scene, rng)
    margin = 1.1 * placed.radius + 1
    x, y = (rng.uniform(margin, EDGE_PIXELS - margin) for _ in range(2))
    return Scene(**{**vars(placed), "x": x, "y": y})


def describe(scene: Scene, rng: random.Random) -> str:
    """Colours and texture always, the shape often, size and place never."""
    texture = "" if scene.texture == "plain" else f"{scene.texture} "
    shape = scene.shape if rng.random() < _SHAPE_SAID_SHARE else rng.choice(("shape", "object"))
    ground = f" on a {scene.background} background" if rng.random() < 0.85 else ""
    return f"a {texture}{scene.colour} {shape}{ground}"


def draw_pairs(kind: str, seed: str, count: int) -> list[Drawing]:
    """Images of scenes, their control images, and captions, a few of which are empty."""
    rng = random.Random(f"{seed}/{count}")
    pairs = []
    for scene in draw_scenes(seed, count):
        caption = "" if rng.random() < _EMPTY_SHARE else describe(scene, rng)
        control = DRAW[kind](scene, 3)
        if kind == "canny" and rng.random() < 0.5:  # a detector's contours are one pixel wide and never grey
            control = control.convert("L").point([255 * (value > 127) for value in range(256)])
        pairs.append(Drawing(render(scene, rng, 3), caption, control))
    return pairs
