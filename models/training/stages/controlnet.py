"""Trains a ControlNet for a frozen denoiser: silhouettes, or contours as a Canny detector draws them.

Captions say neither size nor place, and often not even the shape: what they leave open, the control decides.
A UNet's ControlNet is trained by the worker's own code, from the exported checkpoint.
"""

import random
import tempfile
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from torch import Tensor

from contracts.requests.training.request import TRAINABLE_FAMILIES
from models.training.data.captions import IN_DISTRIBUTION, draw_scene
from models.training.data.drawing import EDGE_PIXELS, Scene, place, render, render_edges, render_silhouette
from models.training.data.gallery import to_bytes
from models.training.lessons import Drawing, teach
from models.training.loop import RUNS, Loop, Plan, join_ranks, pick_device, step_numbers
from models.training.networks.export import build_control, checkpoint_folder, make_tokenizers
from models.training.recipes import Conditions, ControlRecipe, load_recipe
from models.training.stages import autoencoder, denoiser
from models.training.stages.latents import encode
from worker.checkpoints.controlnets import load_controlnet
from worker.families import get_family

_PAIRS_PER_RANK = 6000
_SHAPE_SAID_SHARE = 0.6
_EMPTY_SHARE = 0.1
DRAW = {"silhouette": render_silhouette, "canny": render_edges}
#: Of a training by the worker, which encodes them one by one.
_PAIRS = 2000
SETTINGS = {
    "kind": "controlnet", "rank": 1, "alpha": 1, "steps": 900, "batch_size": 24, "learning_rate": 1e-3,
    "schedule": "cosine", "warmup_steps": 50,
}  # fmt: skip
PLANS = {
    "sd3": Plan(1500, 24, 2e-3, muon_rate=6e-3, warmup_steps=100, ema_decay=0.99, bfloat16_share=1.0),
    "flux": Plan(4500, 24, 2e-3, muon_rate=6e-3, warmup_steps=30, ema_decay=0.99, bfloat16_share=1.0),
}


def train(family: str, kind: str, resume: bool) -> None:
    """Trains one ControlNet and writes it into its run folder."""
    learn = _learn_by_worker if family in TRAINABLE_FAMILIES["controlnet"] else _learn
    learn(family, kind, resume)


def _learn_by_worker(family: str, kind: str, resume: bool) -> None:
    data = teach(
        family, f"control-{family}-{kind}", SETTINGS, draw_pairs(kind, f"train/pairs/{kind}", _PAIRS), resume
    )
    denoiser = diffusers.UNet2DConditionModel.from_pretrained(checkpoint_folder(family), subfolder="unet")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "control.safetensors"
        file.write_bytes(data)
        control = load_controlnet(get_family(family), file, torch.float32, denoiser)
    control.save_pretrained(folder(family, kind))


def _learn(family: str, kind: str, resume: bool) -> None:
    rank, device, plan = join_ranks(), pick_device(), PLANS[family]
    recipe = cast("ControlRecipe", load_recipe(family))
    torch.manual_seed(0)
    base = denoiser.load(family).to(device)
    control = build_control(family, base).to(device)
    recipe.hasten(base)
    recipe.hasten(control)
    name = f"control-{family}-{kind}"
    pairs = draw_pairs(kind, f"train/{name}/{rank.index}", _PAIRS_PER_RANK)
    clean, hints, conditions = gather(recipe, pairs)
    weights = autoencoder.weigh_channels(autoencoder.load(recipe.latent_channels)).to(device)
    recipe.prepare(control, conditions)
    loop = Loop(name, {"control": control}, plan, rank, resume)
    for step in loop:
        rng, generator = step_numbers(loop.name, rank, step)
        rows = [rng.randrange(len(pairs)) for _ in range(plan.batch)]
        said = recipe.vary(conditions.pick(rows), rng).to(device)
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


@torch.no_grad()
def gather(recipe: ControlRecipe, pairs: list[Drawing]) -> tuple[Tensor, Tensor, Conditions]:
    """Latents, hints and conditions of the pairs."""
    vae = autoencoder.load(recipe.latent_channels)
    clean = encode(vae, to_bytes([pair.image for pair in pairs]))
    drawn = to_bytes([pair.control for pair in pairs if pair.control is not None])
    hints = torch.cat([recipe.read_control(vae, part).half() for part in torch.split(drawn, 64)])
    words = make_tokenizers()
    parts = denoiser.load_text_parts(recipe, words)
    return clean, hints, denoiser.encode_all(recipe, parts, words, [pair.caption for pair in pairs])
