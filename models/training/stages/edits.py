"""Teaches FLUX to edit: it begins as the shipped transformer of `shapes-flux`, and is shown pairs of drawn scenes.

Encoders and autoencoder are those of `shapes-flux`, and frozen. With no instruction the reference is what is asked
for: copying is learnt slowest, and is most of every edit.
"""

import itertools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxKontextPipeline, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.training.data.drawing import render
from models.training.data.edits import Edit, training_edits
from models.training.data.gallery import to_bytes
from models.training.loop import RUNS, Loop, Plan, join_ranks, pick_device, step_numbers
from models.training.networks import architectures
from models.training.networks.export import checkpoint_folder, make_tokenizers
from models.training.recipes import Conditions, load_recipe
from models.training.stages import autoencoder, denoiser, text
from models.training.stages.latents import encode

PLAN = Plan(
    5000, 32, 5e-3, muon_rate=1.5e-2, warmup_steps=30, flat_share=0.25, ema_decay=0.998, bfloat16_share=1.0
)
_EDITS = 16_000
_SUPERSAMPLING = 3
_PART = 2000
#: Of the samples, how many have no instruction.
_EMPTY_SHARE = 0.08


@dataclass(frozen=True)
class Pairs:
    """Latents before and after, which instruction each pair has, and what those say (the last one is empty)."""

    before: Tensor
    after: Tensor
    said: list[int]
    conditions: Conditions

    def draw(self, rng: random.Random, count: int) -> tuple[Tensor, Tensor, Conditions]:
        """A batch: references, what is asked for, and instructions."""
        rows = [rng.randrange(len(self.said)) for _ in range(count)]
        kept = [rng.random() < _EMPTY_SHARE for _ in rows]
        before, after = self.before[rows].float(), self.after[rows].float()
        asked = torch.where(torch.tensor(kept)[:, None, None, None], before, after)
        nothing = len(self.conditions.pooled) - 1
        said = [nothing if keep else self.said[row] for row, keep in zip(rows, kept, strict=True)]
        return before, asked, self.conditions.pick(said)


def train(resume: bool) -> None:
    """Trains the transformer and writes it into its run folder."""
    rank, device, recipe = join_ranks(), pick_device(), load_recipe("kontext")
    torch.manual_seed(0)
    editor = open_beginning().to(device)
    recipe.hasten(editor)
    pairs = gather(_EDITS)
    weights = autoencoder.weigh_channels(autoencoder.load(recipe.latent_channels)).to(device)
    loop = Loop("edits", {"denoiser": editor}, PLAN, rank, resume)
    for step in loop:
        rng, generator = step_numbers(loop.name, rank, step)
        before, asked, said = pairs.draw(rng, PLAN.batch)
        said = recipe.vary(said, rng).to(device)
        extra = {name: value.to(device) for name, value in recipe.extras(PLAN.batch, rng).items()}
        share = denoiser.spread(PLAN.batch, rank, generator, recipe.noise_shift).to(device)
        noise = torch.randn(asked.shape, generator=generator).to(device)
        noisy, target = recipe.mix(asked.to(device), noise, share)
        with loop.autocast(device):
            answer = recipe.predict(editor, noisy, share, said, reference=before.to(device), **extra)
        loop.learn(denoiser.measure_error(answer, target, weights))
    if rank.index == 0:
        editor.cpu().eval().save_pretrained(folder())


def folder() -> Path:
    """Where the finished transformer lies."""
    return RUNS / "edits" / "model"


def assemble() -> Any:
    """The pipeline around the finished transformer: the rest is that of `shapes-flux`."""
    recipe, words = load_recipe("kontext"), make_tokenizers()
    texts = {which: text.load(which, words) for which in recipe.texts}
    editor = FluxTransformer2DModel.from_pretrained(folder(), dtype=torch.float32)
    return FluxKontextPipeline(
        **recipe.parts(texts, editor, autoencoder.load(recipe.latent_channels)),
        tokenizer=words.clip,
        tokenizer_2=words.t5,
        scheduler=architectures.build_flow_euler(dynamic_shifting=True),
    )


def open_beginning() -> Any:
    """The transformer of `shapes-flux`, in float32."""
    return FluxTransformer2DModel.from_pretrained(
        checkpoint_folder("flux"), subfolder="transformer", dtype=torch.float32
    )


def gather(count: int) -> Pairs:
    """The edits' latents, from the cache where it has them, and their instructions, encoded once each."""
    edits = list(itertools.islice(training_edits("edits"), count))
    recipe, words = load_recipe("kontext"), make_tokenizers()
    spoken = sorted({edit.instruction for edit in edits})
    parts = denoiser.load_text_parts(recipe, words)
    conditions = denoiser.encode_all(recipe, parts, words, [*spoken, ""])
    latents = _read_latents(recipe.latent_channels, edits)
    places = {instruction: index for index, instruction in enumerate(spoken)}
    said = [places[edit.instruction] for edit in edits]
    return Pairs(latents["before"], latents["after"], said, conditions)


def _read_latents(channels: int, edits: list[Edit]) -> dict[str, Tensor]:
    path = RUNS / f"latents{channels}" / f"edits-{len(edits)}.safetensors"
    if path.exists():
        kept: dict[str, Tensor] = load_file(path)
        return kept
    vae, halves = autoencoder.load(channels), {}
    for name in ("before", "after"):
        scenes = [(getattr(edit, name), edit.seed) for edit in edits]
        drawn = [
            encode(vae, to_bytes([render(scene, random.Random(seed), _SUPERSAMPLING) for scene, seed in part]))
            for part in (scenes[start : start + _PART] for start in range(0, len(scenes), _PART))
        ]
        halves[name] = torch.cat(drawn).half()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(halves, path)
    return halves
