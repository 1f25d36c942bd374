"""Trains one adapter on a frozen checkpoint and writes it in the layout the effect names.

Knows effects, not families: what differs between those is in the recipes.
"""

import random
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from models.training.data.effects import EFFECTS, Effect, draw_example
from models.training.data.gallery import to_bytes
from models.training.loop import Loop, Plan, Rank, join_ranks, pick_device, step_numbers
from models.training.networks.export import MODELS, make_readable, make_tokenizers
from models.training.recipes import Recipe, load_recipe
from models.training.stages import autoencoder, denoiser
from models.training.stages.latents import encode

FOLDER = MODELS / "loras"
_EXAMPLES = 2000
_EMPTY_SHARE = 0.08
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True)
class Hold:
    """Where a family's adapters take hold of it; layers are named by how their full names end."""

    denoiser: str
    layers: tuple[str, ...]
    #: for effects that ask for feed-forward layers too
    more_layers: tuple[str, ...]
    #: for effects with a new word
    word_layers: tuple[str, ...]
    #: those that the family's LoRA loader accepts; T5 is not among them
    text_encoders: tuple[str, ...]
    most_rank: int = 32


#: A transformer is drawn on by its feed-forward layers and the last one. Its text has layers of its own in every
#: block: a word that the frozen T5 was never taught reaches the image through them alone.
_JOINT_LAYERS = (*_ATTENTION, *_FEED_FORWARD, "proj_mlp", "proj_out")
_JOINT_WORD_LAYERS = (
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
    "ff_context.net.0.proj",
    "ff_context.net.2",
)
_CLIPS = ("text_encoder", "text_encoder_2")
HOLDS = {
    "sdxl": Hold("unet", _ATTENTION, _FEED_FORWARD, (), _CLIPS),
    "sd3": Hold("transformer", _JOINT_LAYERS, (), _JOINT_WORD_LAYERS, _CLIPS, most_rank=8),
    "flux": Hold("transformer", _JOINT_LAYERS, (), _JOINT_WORD_LAYERS, _CLIPS[:1], most_rank=8),
}


def plan_for(effect: Effect) -> Plan:
    """Small adapters learn fast."""
    return Plan(effect.steps, 24, 4e-3, warmup_steps=30, ema_decay=0.97, weight_decay=0.0, bfloat16_share=0.7)


def train(family: str, name: str, resume: bool) -> None:
    """Trains one adapter and writes it to models/loras/."""
    rank, device, effect = join_ranks(), pick_device(), EFFECTS[name]
    recipe, plan = load_recipe(family), plan_for(effect)
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
    hold = HOLDS[family]
    targets = hold.layers + (hold.more_layers if effect.feed_forward else ())
    targets += hold.word_layers if effect.text else ()
    parts["denoiser"].add_adapter(_config(family, effect, targets))
    adapted = {hold.denoiser: parts["denoiser"]}
    if effect.text:
        for name in hold.text_encoders:
            parts[name].add_adapter(_config(family, effect, _TEXT))
            adapted[name] = parts[name]
    return adapted


def rank_of(family: str, effect: Effect) -> int:
    """The effect's rank, or the most of the family, whose adapters change more layers."""
    return min(effect.rank, HOLDS[family].most_rank)


def _config(family: str, effect: Effect, targets: tuple[str, ...]) -> LoraConfig:
    rank = rank_of(family, effect)
    return LoraConfig(
        r=rank,
        lora_alpha=rank * effect.alpha / effect.rank,  # the effect's own strength, whatever the rank
        init_lora_weights="gaussian",
        target_modules=list(targets),
    )


def draw_examples(recipe: Recipe, name: str, rank: Rank) -> tuple[Tensor, list[str]]:
    """Latents of images with the effect, and their captions; the last caption is the empty one."""
    rng = random.Random(f"train/lora-{name}/{rank.index}")
    examples = [draw_example(name, rng) for _ in range(_EXAMPLES)]
    pixels = to_bytes([image for image, _ in examples])
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
