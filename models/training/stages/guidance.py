"""Teaches FLUX what guidance does: one call with a number instead of two calls and a sum, as in FLUX.1 [dev].

The teacher is the plainly trained transformer, which is also where the student starts.
"""

import copy
import random

import torch
from torch import Tensor

from models.training.loop import Loop, Plan, join_ranks, pick_device, step_numbers
from models.training.recipes import Conditions, load_recipe, pad_to
from models.training.stages import autoencoder, denoiser

PLAN = Plan(700, 32, 1e-3, muon_rate=3e-3, warmup_steps=30, ema_decay=0.98, bfloat16_share=1.0)
_LEAST, _MOST = 1.0, 6.0
#: Guidance 1 is the plain transformer: LoRA and ControlNet are trained there.
_PLAIN_SHARE = 0.2


def train(family: str, resume: bool) -> None:
    """Distils guidance into a copy of the family's denoiser."""
    rank, device = join_ranks(), pick_device()
    recipe = load_recipe(family)
    teacher = denoiser.load_plain(family).to(device)
    student = copy.deepcopy(teacher).requires_grad_(True)
    recipe.hasten(teacher)
    recipe.hasten(student)
    studies = denoiser.gather(family, recipe, rank, shards=rank.count)
    weights = autoencoder.weigh_channels(autoencoder.load(recipe.latent_channels)).to(device)
    loop = Loop(f"guidance-{family}", {"denoiser": student}, PLAN, rank, resume)
    for step in loop:
        rng, generator = step_numbers(loop.name, rank, step)
        clean, said = studies.draw(rng, PLAN.batch)
        said = recipe.vary(said, rng).to(device)
        nothing = studies.conditions.pick([-1] * PLAN.batch)
        nothing = Conditions(pad_to(nothing.hidden, said.hidden.shape[1]), nothing.pooled).to(device)
        share = denoiser.spread(PLAN.batch, rank, generator, recipe.noise_shift).to(device)
        noisy, _ = recipe.mix(clean.to(device), torch.randn(clean.shape, generator=generator).to(device), share)
        amount = draw_amounts(rng, PLAN.batch).to(device)
        plain = torch.ones_like(amount)
        with loop.autocast(device):
            with torch.no_grad():
                with_words = recipe.predict(teacher, noisy, share, said, guidance=plain)
                without = recipe.predict(teacher, noisy, share, nothing, guidance=plain)
            target = without + amount[:, None, None, None] * (with_words - without)
            answer = recipe.predict(student, noisy, share, said, guidance=amount)
        loop.learn(denoiser.measure_error(answer, target, weights))
    if rank.index == 0:
        student.cpu().eval().save_pretrained(denoiser.guided_folder(family))


def draw_amounts(rng: random.Random, count: int) -> Tensor:
    """How much guidance each sample asks for."""
    return torch.tensor(
        [_LEAST if rng.random() < _PLAIN_SHARE else rng.uniform(_LEAST, _MOST) for _ in range(count)]
    )
