"""Trains the classifier of shapes, an example of a safety check: `models/safety/no-stars`."""

import random
from pathlib import Path

import torch
from PIL import Image, ImageFilter
from transformers import CLIPImageProcessor, ResNetConfig, ResNetForImageClassification

from models.training.data.captions import draw_scene
from models.training.data.drawing import EDGE_PIXELS, SHAPES, render

_TARGET = Path(__file__).resolve().parents[2] / "safety" / "no-stars"
_IMAGES, _STEPS, _IMAGES_A_STEP = 4000, 600, 64


def train() -> None:
    """Trains on drawings, half of them blurred as a model's images are, and writes the classifier."""
    torch.manual_seed(0)
    rng = random.Random("no stars")
    model, processor = _make()
    images, labels = zip(*(_draw(rng) for _ in range(_IMAGES)), strict=True)
    pixels, right = processor(images=list(images), return_tensors="pt").pixel_values, torch.tensor(labels)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=_STEPS)
    for step in range(_STEPS):
        chosen = torch.randint(_IMAGES, (_IMAGES_A_STEP,))
        result = model(pixel_values=pixels[chosen], labels=right[chosen])
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            share = (result.logits.argmax(1) == right[chosen]).float().mean()
            print(f"step {step + 1}: loss {float(result.loss):.3f}, {float(share):.0%} right", flush=True)
    model.eval().save_pretrained(_TARGET)
    processor.save_pretrained(_TARGET)


def _make() -> tuple[ResNetForImageClassification, CLIPImageProcessor]:
    labels = dict(enumerate(SHAPES))
    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        id2label=labels,
        label2id={name: number for number, name in labels.items()},
    )
    sizes = {"size": {"shortest_edge": EDGE_PIXELS}, "crop_size": {"height": EDGE_PIXELS, "width": EDGE_PIXELS}}
    return ResNetForImageClassification(config), CLIPImageProcessor(**sizes)


def _draw(rng: random.Random) -> tuple[Image.Image, int]:
    scene = draw_scene(rng)
    image = render(scene, rng)
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2.0)))
    return image, SHAPES.index(scene.shape)
