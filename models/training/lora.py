"""Trains one adapter on a frozen checkpoint and writes it in the layout the effect names.

Knows effects, not families: what differs between those is in the recipes.
"""

import random
from typing import Any

import torch
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from models.training import autoencoder, denoiser
from models.training.effects import EFFECTS, Effect, draw_example
from models.training.export import MODELS, make_readable, make_tokenizers
from models.training.gallery import to_bytes
from models.training.latents import encode
from models.training.loop import Loop, Plan, Rank, join_ranks, pick_device, step_numbers
from models.training.recipes import Recipe, load_recipe

FOLDER = MODELS / "loras"
_EXAMPLES = 2000
_EMPTY_SHARE = 0.08
_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_FEED_FORWARD = ["ff.net.0.proj", "ff.net.2"]
_TEXT = ["q_proj", "k_proj", "v_proj", "out_proj"]
#: The text encoders that the families' LoRA loaders accept; T5 is not among them.
_ADAPTED_TEXT = {
    "sdxl": ("text_encoder", "text_encoder_2"),
    "sd3": ("text_encoder", "text_encoder_2"),
    "flux": ("text_encoder",),
}


def plan_for(family: str, effect: Effect) -> Plan:
    """Small adapters learn fast, those of transformers in half the steps."""
    steps = effect.steps if family == "sdxl" else effect.steps // 2
    return Plan(steps, 24, 4e-3, warmup_steps=30, ema_decay=0.97, weight_decay=0.0, bfloat16_share=0.7)


def train(family: str, name: str, resume: bool) -> None:
    """Trains one adapter and writes it to models/loras/."""
    rank, device, effect = join_ranks(), pick_device(), EFFECTS[name]
    recipe, plan = load_recipe(family), plan_for(family, effect)
    torch.manual_seed(0)
    words = make_tokenizers()
    base = denoiser.load(family)
    recipe.hasten(base)
    parts = {**denoiser.load_text_parts(recipe, words), "denoiser": base}
    adapted = adapt(family, effect, parts)
    for model in parts.values():
        if model is not None:
            model.to(device)
    clean, captions = draw_examples(recipe, name, rank)
    fixed = None if effect.text else denoiser.encode_all(recipe, parts, words, captions)
    weights = autoencoder.weigh_channels(autoencoder.load(recipe.latent_channels)).to(device)
    loop = Loop(f"lora-{family}-{name}", adapted, plan, rank, resume)
    for step in loop:
        rng, generator = step_numbers(loop.name, rank, step)
        rows = [rng.randrange(_EXAMPLES) for _ in range(plan.batch)]
        said = [-1 if rng.random() < _EMPTY_SHARE else row for row in rows]
        share = denoiser.spread(plan.batch, rank, generator, recipe.noise_shift).to(device)
        noise = torch.randn(clean[rows].shape, generator=generator).to(device)
        noisy, target = recipe.mix(clean[rows].to(device), noise, share)
        with loop.autocast(device):
            heard = fixed.pick(said) if fixed else recipe.encode(parts, words, [captions[i] for i in said])
            heard = recipe.vary(heard, rng).to(device)
            extra = {name: value.to(device) for name, value in recipe.extras(plan.batch, rng).items()}
            predicted = recipe.predict(base, noisy, share, heard, **extra)
        loop.learn(denoiser.measure_error(predicted, target, weights))
    if rank.index == 0:
        write(family, effect, adapted)


def adapt(family: str, effect: Effect, parts: dict[str, Any]) -> dict[str, nn.Module]:
    """Injects the adapter; returns the models it is in. Everything else stays frozen."""
    targets = _ATTENTION + (_FEED_FORWARD if effect.feed_forward else [])
    parts["denoiser"].add_adapter(_config(effect, targets))
    adapted = {"unet" if family == "sdxl" else "transformer": parts["denoiser"]}
    if effect.text:
        for name in _ADAPTED_TEXT[family]:
            parts[name].add_adapter(_config(effect, _TEXT))
            adapted[name] = parts[name]
    return adapted


def _config(effect: Effect, targets: list[str]) -> LoraConfig:
    return LoraConfig(r=effect.rank, lora_alpha=effect.alpha, init_lora_weights="gaussian", target_modules=targets)


def draw_examples(recipe: Recipe, name: str, rank: Rank) -> tuple[Tensor, list[str]]:
    """Latents of pictures with the effect, and their captions; the last caption is the empty one."""
    rng = random.Random(f"train/lora-{name}/{rank.index}")
    examples = [draw_example(name, rng) for _ in range(_EXAMPLES)]
    pixels = to_bytes([picture for picture, _ in examples])
    clean = encode(autoencoder.load(recipe.latent_channels), pixels)
    return clean, [*(caption for _, caption in examples), ""]


def write(family: str, effect: Effect, adapted: dict[str, nn.Module]) -> None:
    """PEFT's layout, which has no alpha and means the rank, or kohya's, which knows a UNet's names only."""
    weights: dict[str, Tensor] = {}
    for prefix, model in adapted.items():
        own = get_peft_model_state_dict(model.cpu())
        weights |= {f"{prefix}.{name}": weight for name, weight in own.items()}
    if effect.layout == "kohya" and "unet" in adapted:
        weights = convert_state_dict_to_kohya(weights)
        alphas = {name: torch.tensor(float(effect.alpha)) for name in weights if name.endswith(".alpha")}
        weights |= alphas
    else:
        for name in (name for name in weights if ".lora_B." in name):
            weights[name] = weights[name] * (effect.alpha / effect.rank)
    path = FOLDER / f"shapes-{family}-{effect.name}.safetensors"
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: weight.half().contiguous() for name, weight in weights.items()}, path, metadata={"format": "pt"}
    )
    make_readable([path])
