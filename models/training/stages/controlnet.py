"""Trains a ControlNet for a frozen denoiser: silhouettes, or contours as a Canny detector draws them.

Captions say neither size nor place, and often not even the shape: what they leave open, the control decides.
"""

import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.training.data.captions import IN_DISTRIBUTION, draw_scene
from models.training.data.drawing import EDGE_PIXELS, Scene, place, render, render_edges, render_silhouette
from models.training.data.gallery import to_bytes
from models.training.loop import RUNS, Loop, Plan, join_ranks, pick_device, step_numbers
from models.training.networks.export import build_control, make_tokenizers
from models.training.recipes import Conditions, Recipe, load_recipe
from models.training.stages import autoencoder, denoiser
from models.training.stages.latents import encode

_SCENES_PER_RANK = 6000
_SHAPE_SAID_SHARE = 0.6
_EMPTY_SHARE = 0.1
DRAW = {"silhouette": render_silhouette, "canny": render_edges}
PLANS = {
    "sdxl": Plan(900, 24, 1e-3, warmup_steps=50, ema_decay=0.99, bfloat16_share=0.8),
    "sd3": Plan(1500, 24, 2e-3, muon_rate=6e-3, warmup_steps=100, ema_decay=0.99, bfloat16_share=1.0),
    "flux": Plan(4500, 24, 2e-3, muon_rate=6e-3, warmup_steps=30, ema_decay=0.99, bfloat16_share=1.0),
}


def train(family: str, kind: str, resume: bool) -> None:
    """Trains one ControlNet and writes it into its run folder."""
    rank, device, plan = join_ranks(), pick_device(), PLANS[family]
    recipe = load_recipe(family)
    torch.manual_seed(0)
    base = denoiser.load(family).to(device)
    control = build_control(family, base).to(device)
    recipe.hasten(base)
    recipe.hasten(control)
    name = f"control-{family}-{kind}"
    scenes = draw_scenes(f"train/{name}/{rank.index}", _SCENES_PER_RANK)
    clean, hints, conditions = gather(recipe, kind, scenes)
    weights = autoencoder.weigh_channels(autoencoder.load(recipe.latent_channels)).to(device)
    recipe.prepare(control, conditions)
    loop = Loop(name, {"control": control}, plan, rank, resume)
    for step in loop:
        rng, generator = step_numbers(loop.name, rank, step)
        rows = [rng.randrange(len(scenes)) for _ in range(plan.batch)]
        said = conditions.pick([-1 if rng.random() < _EMPTY_SHARE else row for row in rows])
        said = recipe.vary(said, rng).to(device)
        share = denoiser.spread(plan.batch, rank, generator, recipe.noise_shift).to(device)
        noise = torch.randn(clean[rows].shape, generator=generator).to(device)
        noisy, target = recipe.mix(clean[rows].to(device), noise, share)
        with loop.autocast(device):
            extra = recipe.steer(control, noisy, share, said, hints[rows].float().to(device))
            predicted = recipe.predict(base, noisy, share, said, **extra)
        loop.learn(denoiser.measure_error(predicted, target, weights))
    if rank.index == 0:
        control.cpu().eval().save_pretrained(folder(family, kind))


def folder(family: str, kind: str) -> Path:
    """Where a finished ControlNet lies."""
    return RUNS / f"control-{family}-{kind}" / "model"


def load(family: str, kind: str) -> Any:
    """A finished ControlNet, frozen, in float32."""
    fresh = build_control(family, denoiser.load(family))
    return type(fresh).from_pretrained(folder(family, kind)).eval().requires_grad_(False)


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


@torch.no_grad()
def gather(recipe: Recipe, kind: str, scenes: list[Scene]) -> tuple[Tensor, Tensor, Conditions]:
    """Latents, hints and conditions of the scenes; the last condition is the empty caption's."""
    rng = random.Random(f"train/control/{kind}/{len(scenes)}")
    vae = autoencoder.load(recipe.latent_channels)
    clean = encode(vae, to_bytes([render(scene, rng, 3) for scene in scenes]))
    drawn = to_bytes([DRAW[kind](scene, 3) for scene in scenes])
    if kind == "canny":  # a detector's contours are one pixel wide and never grey
        hard = torch.tensor([rng.random() < 0.5 for _ in scenes])[:, None, None, None]
        drawn = torch.where(hard, (drawn > 127).byte() * 255, drawn)
    hints = torch.cat([recipe.read_control(vae, part).half() for part in torch.split(drawn, 64)])
    words = make_tokenizers()
    parts = denoiser.load_text_parts(recipe, words)
    captions = [*(describe(scene, rng) for scene in scenes), ""]
    return clean, hints, denoiser.encode_all(recipe, parts, words, captions)
