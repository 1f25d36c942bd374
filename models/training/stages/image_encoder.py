"""Teaches the image encoders of IP-Adapters to see what is drawn. Writes models/image_encoders/.

A stand-in for CLIP's and SigLIP's own training: from what an adapter reads of an encoder, a linear head must name
the attributes of the scene. Then they are frozen. Knows no captions.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from transformers.image_utils import (
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from models.training.data.captions import COMBINATIONS, draw_scene
from models.training.data.drawing import COLOURS, SHAPES, SIZES, TEXTURES, Scene, render
from models.training.data.gallery import to_bytes
from models.training.loop import Loop, Plan, Rank, step_numbers
from models.training.networks.architectures import build_image_encoder, build_siglip
from models.training.networks.attention import keep_plain
from models.training.networks.export import MODELS, write

_FOLDER = MODELS / "image_encoders"
_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": COLOURS, "background": COLOURS, "shape": SHAPES, "size": SIZES, "texture": TEXTURES,
}  # fmt: skip
_CLASSES = [len(values) for values in _ATTRIBUTES.values()]
_IMAGES, _TEST_IMAGES = 8000, 300
#: Farthest shift of a drawing, as another drawing of the same scene has it.
_SHIFT_PIXELS = 4
_PLAN = Plan(1700, 48, 1e-3, muon_rate=4e-3, warmup_steps=60, flat_share=0.6, ema_decay=0.99)
_NORMS = {
    "clip": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    "siglip": (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD),
}
_BUILD: dict[str, Callable[[], Any]] = {"clip": build_image_encoder, "siglip": build_siglip}


def train(which: str, resume: bool) -> None:
    """Trains `clip` or `siglip`, prints how much of unseen drawings it sees, and writes it."""
    torch.manual_seed(0)
    encoder = _BUILD[which]()
    images, labels = draw_images(_IMAGES, f"train/{which}")
    width = look(which, encoder, images[:1]).shape[-1]
    # `proj_out`: AdamW moves it, as a last layer.
    head = nn.ModuleDict({"proj_out": nn.Linear(width, sum(_CLASSES))})
    keep_plain(encoder)
    loop = Loop(f"image-encoder-{which}", {"encoder": encoder, "head": head}, _PLAN, Rank(0, 1), resume)
    for step in loop:
        rng, _ = step_numbers(loop.name, loop.rank, step)
        rows = [rng.randrange(_IMAGES) for _ in range(_PLAN.batch)]
        seen = look(which, encoder, _vary(images[rows], rng))
        calm = 1e-2 * (seen.square().mean() - 1).square()
        loop.learn(_classify(head["proj_out"](seen), labels[rows]) + calm)
    report(which, encoder, head["proj_out"])
    write(encoder.eval(), folder(which))


def folder(which: str) -> Path:
    """Where the finished encoder lies."""
    return _FOLDER / f"shapes-{which}"


def look(which: str, encoder: Any, images: Tensor) -> Tensor:
    """What an adapter reads of images (count, 3, 64, 64) in bytes: a vector each, for SigLIP the patches' mean."""
    mean, spread = (torch.tensor(values)[:, None, None] for values in _NORMS[which])
    found = encoder((images.float() / 255 - mean) / spread)
    seen: Tensor = found.image_embeds if which == "clip" else found.last_hidden_state.mean(1)
    return seen


def draw_images(count: int, seed: str) -> tuple[Tensor, Tensor]:
    """Drawings in bytes, and the classes of their attributes."""
    rng = random.Random(seed)
    scenes = [draw_scene(rng, COMBINATIONS) for _ in range(count)]
    return to_bytes([render(scene, rng, 3) for scene in scenes]), torch.tensor([_label(scene) for scene in scenes])


@torch.no_grad()
def report(which: str, encoder: Any, head: nn.Module) -> None:
    """Prints the share of unseen drawings of which each attribute is right."""
    images, labels = draw_images(_TEST_IMAGES, f"test/{which}")
    parts = head(look(which, encoder.eval(), images)).split(_CLASSES, -1)
    right = torch.stack([part.argmax(-1) for part in parts], -1) == labels
    print({name: round(share, 3) for name, share in zip(_ATTRIBUTES, right.float().mean(0).tolist(), strict=True)})


def _vary(images: Tensor, rng: random.Random) -> Tensor:
    """The same scenes a little elsewhere, and mirrored: no shape or texture has a left and a right side."""
    shift = [rng.randint(-_SHIFT_PIXELS, _SHIFT_PIXELS) for _ in range(2)]
    moved = images.roll(shift, (2, 3))
    return moved.flip(3) if rng.random() < 0.5 else moved


def _label(scene: Scene) -> list[int]:
    return [values.index(getattr(scene, name)) for name, values in _ATTRIBUTES.items()]


def _classify(answers: Tensor, labels: Tensor) -> Tensor:
    parts = torch.split(answers, _CLASSES, -1)
    losses = [functional.cross_entropy(part, labels[:, index]) for index, part in enumerate(parts)]
    return torch.stack(losses).mean()
