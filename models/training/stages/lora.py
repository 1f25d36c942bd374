"""Trains one LoRA on an exported checkpoint, and writes it in the layout that its effect names.

Knows effects; the training itself is the worker's.
"""

import random
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import convert_state_dict_to_kohya
from safetensors.torch import load

from models.training.data.effects import EFFECTS, Effect, draw_example
from models.training.lessons import Drawing, teach
from models.training.networks.export import MODELS
from worker.families import get_family
from worker.training.files import to_safetensors

FOLDER = MODELS / "loras"
_EXAMPLES = 2000
_EMPTY_SHARE = 0.08
#: LoRAs of transformers change more layers.
_MOST_RANK = {"sdxl": 32, "sd3": 8, "flux": 8, "sd15": 32}


def train(family: str, name: str, resume: bool) -> None:
    """Trains one LoRA and writes it to models/loras/."""
    effect = EFFECTS[name]
    drawings = draw_examples(name, _EXAMPLES)
    write(family, effect, teach(family, f"lora-{family}-{name}", settings_for(family, effect), drawings, resume))


def settings_for(family: str, effect: Effect) -> dict[str, Any]:
    """How the effect is learnt: small LoRAs learn fast."""
    rank = min(effect.rank, _MOST_RANK[family])
    return {
        "rank": rank,
        "alpha": rank * effect.alpha / effect.rank,  # the effect's own strength, whatever the rank
        "targets": "attention_and_feed_forward" if effect.feed_forward else "attention",
        "train_text_encoder": effect.text,
        "steps": effect.steps,
        "batch_size": 24,
        "learning_rate": 4e-3,
        "schedule": "cosine",
        "warmup_steps": 30,
    }


def draw_examples(name: str, count: int, empty_share: float = _EMPTY_SHARE) -> list[Drawing]:
    """Images with the effect, and their captions, some of which are empty."""
    rng = random.Random(f"train/lora-{name}")
    examples = (draw_example(name, rng) for _ in range(count))
    return [Drawing(image, "" if rng.random() < empty_share else caption) for image, caption in examples]


def write(family: str, effect: Effect, data: bytes) -> Path:
    """Writes a file in diffusers' layout, or in kohya's, which knows a UNet's names only and has an alpha."""
    if effect.layout == "kohya" and get_family(family).denoiser == "unet":
        strength = effect.alpha / effect.rank
        weights = {name: w / strength if ".lora_B." in name else w for name, w in load(data).items()}
        weights = convert_state_dict_to_kohya(weights)
        alphas = {name: torch.tensor(float(effect.alpha)) for name in weights if name.endswith(".alpha")}
        data = to_safetensors({**weights, **alphas}, {"format": "pt"})
    path = FOLDER / f"shapes-{family}-{effect.name}.safetensors"
    FOLDER.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
