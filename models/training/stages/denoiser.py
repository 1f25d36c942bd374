"""Trains a family's denoiser on cached latents and cached conditions. Knows families only through recipes."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from models.training.data.captions import describe, describe_partly
from models.training.data.drawing import Scene
from models.training.loop import RUNS, Loop, Plan, Rank, join_ranks, pick_device, step_numbers
from models.training.networks.export import Tokenizers, make_tokenizers
from models.training.recipes import Conditions, Recipe, load_recipe
from models.training.stages import autoencoder, inheritance, latents, text
from worker.families import get_family

#: The images lie in as many shards, shared out over the ranks: the data is the same however many train.
_SHARDS = 4
#: A denoiser that begins as another one needs fewer.
_SCENES = {"sdxl": 48_000, "sd3": 48_000, "flux": 48_000, "sd15": 4000}
_CAPTIONS_PER_SCENE = 2
_PARTLY_SHARE = 0.08
_PART = 256
PLANS = {
    "sdxl": Plan(3200, 32, 1.5e-3, bfloat16_share=0.85),
    "sd15": Plan(160, 32, 2.5e-4, warmup_steps=15, flat_share=0.2, ema_decay=0.97),
    "sd3": Plan(13000, 40, 5e-3, muon_rate=1.5e-2, warmup_steps=60, flat_share=0.5, bfloat16_share=1.0),
    "flux": Plan(15000, 40, 5e-3, muon_rate=1.5e-2, warmup_steps=60, flat_share=0.5, bfloat16_share=1.0),
}
#: Family -> what builds its denoiser, where that does not begin with random weights.
_BEGIN = {"sd15": inheritance.build}


@dataclass(frozen=True)
class Studies:
    """What a denoiser learns from: latents, and the conditions of their captions (the last one empty)."""

    latents: Tensor
    conditions: Conditions
    empty_share: float

    def draw(self, rng: random.Random, count: int) -> tuple[Tensor, Conditions]:
        """A batch; now and then the caption is the empty one."""
        rows = [rng.randrange(len(self.latents)) for _ in range(count)]
        empty = len(self.conditions.pooled) - 1
        said = [row * _CAPTIONS_PER_SCENE + rng.randrange(_CAPTIONS_PER_SCENE) for row in rows]
        said = [empty if rng.random() < self.empty_share else row for row in said]
        return self.latents[rows], self.conditions.pick(said)


def train(family: str, resume: bool) -> None:
    """Trains the family's denoiser and writes it into its run folder."""
    rank, device, plan = join_ranks(), pick_device(), PLANS[family]
    recipe = load_recipe(family)
    torch.manual_seed(0)
    denoiser = _BEGIN.get(family, recipe.build)().to(device)
    recipe.hasten(denoiser)
    studies = gather(family, recipe, rank)
    weights = autoencoder.weigh_channels(autoencoder.load(recipe.latent_channels)).to(device)
    loop = Loop(f"denoiser-{family}", {"denoiser": denoiser}, plan, rank, resume)
    for step in loop:
        rng, generator = step_numbers(loop.name, rank, step)
        clean, conditions = studies.draw(rng, plan.batch)
        conditions = recipe.vary(conditions, rng).to(device)
        extra = {name: value.to(device) for name, value in recipe.extras(plan.batch, rng).items()}
        share = spread(plan.batch, rank, generator, recipe.noise_shift).to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        noisy, target = recipe.mix(clean.to(device), noise, share)
        with loop.autocast(device):
            said = recipe.predict(denoiser, noisy, share, conditions, **extra)
        loop.learn(measure_error(said, target, weights))
    if rank.index == 0:
        denoiser.cpu().eval().save_pretrained(folder(family))


def folder(family: str) -> Path:
    """Where a finished denoiser lies."""
    return RUNS / f"denoiser-{family}" / "model"


def measure_error(said: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean square, with a weight per channel."""
    error: Tensor = ((said.float() - target.float()).square() * weights[:, None, None]).mean()
    return error


def spread(count: int, rank: Rank, generator: torch.Generator, shift: float) -> Tensor:
    """Noise shares, one from each equal part of 0…1 over all ranks, then shifted as a flow scheduler does it.

    Large shapes on a flat ground are lost only under much noise, so that is where contours are learnt.
    """
    places = torch.arange(count) * rank.count + rank.index
    even = (places + torch.rand(count, generator=generator)) / (count * rank.count)
    return shift * even / (1 + (shift - 1) * even)


def gather(family: str, recipe: Recipe, rank: Rank, shards: int = _SHARDS) -> Studies:
    """The rank's latents and conditions. Text is frozen, so each caption is encoded once."""
    words = make_tokenizers()
    parts = load_text_parts(recipe, words)
    clean: list[Tensor] = []
    captions: list[str] = []
    for shard in range(rank.index, shards, rank.count):
        scenes, encoded = latents.load_shard(recipe.latent_channels, shard, _SCENES[family] // _SHARDS)
        clean.append(encoded)
        captions += write_captions(family, scenes, shard)
    conditions = encode_all(recipe, parts, words, [*captions, ""])
    return Studies(torch.cat(clean), conditions, recipe.empty_share)


def write_captions(family: str, scenes: list[Scene], shard: int) -> list[str]:
    """A few captions for every scene, some of which leave much out."""
    rng = random.Random(f"train/captions-{family}/{shard}")
    return [
        describe_partly(scene, rng) if rng.random() < _PARTLY_SHARE else describe(scene, rng)
        for scene in scenes
        for _ in range(_CAPTIONS_PER_SCENE)
    ]


def load_text_parts(recipe: Recipe, words: Tokenizers) -> dict[str, Any]:
    """The frozen text encoders under their pipeline names."""
    texts = {which: text.load(which, words) for which in recipe.texts}
    return recipe.parts(texts, denoiser=None, vae=None)


@torch.no_grad()
def encode_all(recipe: Recipe, parts: dict[str, Any], words: Tokenizers, captions: list[str]) -> Conditions:
    """Conditions of many captions, in half precision."""
    done = [
        recipe.encode(parts, words, captions[start : start + _PART]).halve()
        for start in range(0, len(captions), _PART)
    ]
    return Conditions(torch.cat([c.hidden for c in done]), torch.cat([c.pooled for c in done]))


def guided_folder(family: str) -> Path:
    """Where the denoiser lies after it has learnt guidance."""
    return RUNS / f"guidance-{family}" / "model"


def load(family: str) -> Any:
    """The denoiser that is shipped, frozen, in float32: the guided one where the family has one."""
    return _load(family, guided_folder(family) if load_recipe(family).guided else folder(family))


def load_plain(family: str) -> Any:
    """The denoiser before it has learnt guidance."""
    return _load(family, folder(family))


def _load(family: str, source: Path) -> Any:
    kind = getattr(diffusers, get_family(family).denoiser_class)
    return kind.from_pretrained(source).eval().requires_grad_(False)


def load_parts(family: str, words: Tokenizers) -> dict[str, Any]:
    """Every finished component of a family under its pipeline name."""
    recipe = load_recipe(family)
    texts = {which: text.load(which, words) for which in recipe.texts}
    return recipe.parts(texts, load(family), autoencoder.load(recipe.latent_channels))
