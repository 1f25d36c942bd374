"""Teaches the text encoders what the words mean, before any image is seen; then they are frozen.

A stand-in for CLIP's and T5's own training: from a few of an encoder's outputs, linear heads must say which
attributes a caption names. Knows captions, no images.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from models.training.data.captions import COMBINATIONS, decorate, describe, describe_partly, draw_scene, find_said
from models.training.data.drawing import COLOURS, POSITIONS, SHAPES, SIZES, TEXTURES
from models.training.loop import RUNS, Loop, Plan, join_ranks, pick_device, step_numbers
from models.training.networks import architectures
from models.training.networks.export import Tokenizers, make_tokenizers

#: Class 0 of every attribute is "not said".
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "background": COLOURS,
    "shape": SHAPES,
    "size": SIZES,
    "position": tuple(POSITIONS),
    "texture": TEXTURES,
}
#: What SD3's CLIPs cannot see, so that only its T5 can tell: these words share one embedding each.
BLIND_WORDS = (
    ("left", "right", "top", "bottom", "center", "middle"),
    ("plain", "striped", "dotted", "stripes", "dots"),
)
_BLIND_ATTRIBUTES = ("position", "texture")
_CLASSES = [len(values) + 1 for values in ATTRIBUTES.values()]
#: Longest caption of the grammar with room; a causal encoder's states do not change with more padding.
_CLIP_STEPS = 32
PLAN = Plan(1000, 48, 1e-3, warmup_steps=50, flat_share=0.4, ema_decay=0.99)

#: (captions, random numbers) -> rows to classify, each (batch, width), and an extra loss
Reader = Callable[[list[str], random.Random], tuple[list[Tensor], Tensor]]


def train(which: str, resume: bool) -> None:
    """Trains `clip` (SDXL's pair, FLUX's one), `blind-clip` (SD3's pair) or `t5` (SD3's and FLUX's)."""
    rank, device = join_ranks(), pick_device()
    torch.manual_seed(0)
    words = make_tokenizers()
    models = {name: model.to(device) for name, model in build(which, words).items()}
    for model in models.values():
        scatter(model)
    if which == "blind-clip":
        for model in models.values():
            blind(model, words)
    reader = _read_t5(models, words, device) if which == "t5" else _read_clips(models, words, device)
    rows, _ = reader(["a"], random.Random(0))
    heads = nn.ModuleList(nn.Linear(row.shape[-1], sum(_CLASSES)) for row in rows).to(device)
    loop = Loop(f"text-{which}", {**models, "heads": heads}, PLAN, rank, resume)
    unseen = _BLIND_ATTRIBUTES if which == "blind-clip" else ()
    for step in loop:
        rng, _ = step_numbers(loop.name, rank, step)
        captions, labels = draw_batch(rng, PLAN.batch, unseen)
        rows, extra = reader(captions, rng)
        loop.learn(classify(heads, rows, labels.to(device)) + extra)
        if which == "blind-clip":
            for model in models.values():
                blind(model, words)
    for name, model in models.items():
        if which == "blind-clip":
            blind(model, words)  # the average over steps is not quite
        model.eval().save_pretrained(folder(which) / name)
    report(reader, heads, unseen, device)


def build(which: str, words: Tokenizers) -> dict[str, Any]:
    """The encoders that are trained together, fresh."""
    size = len(words.clip)
    if which == "t5":
        return {"t5": architectures.build_t5(len(words.t5))}
    if which == "blind-clip":
        return {
            "first": architectures.build_projected_clip(size, layers=3),
            "second": architectures.build_projected_clip(size),
        }
    return {"first": architectures.build_clip(size), "second": architectures.build_projected_clip(size)}


def folder(which: str) -> Path:
    """Where finished encoders lie."""
    return RUNS / f"text-{which}" / "model"


def load(which: str, words: Tokenizers) -> dict[str, Any]:
    """Finished encoders, frozen, in float32."""
    return {
        name: type(model).from_pretrained(folder(which) / name).eval().requires_grad_(False)
        for name, model in build(which, words).items()
    }


def scatter(model: Any) -> None:
    """Wider than the usual start: words should differ from the first step on."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "token_embedding" in name or name == "shared.weight":
                weight.normal_(0, 0.5)
            elif "position_embedding" in name:
                weight.normal_(0, 0.15)
            elif "relative_attention" not in name and weight.ndim == 2:
                weight.normal_(0, 0.7 * weight.shape[1] ** -0.5)
            elif "relative_attention" in name:
                lean(weight)


def lean(bias: Tensor) -> None:
    """T5's heads start out looking at the next word, the word before, the neighbourhood and everything.

    Without this, which of two colours is the background's takes thousands of steps to learn.
    """
    after = bias.shape[0] // 2  # the first half of the buckets is for words before
    bias.zero_()
    bias[after + 1, 0] = bias[1, 1] = 4.0
    bias[[1, 2, 3, after + 1, after + 2, after + 3], 2] = 2.0


def blind(model: Any, words: Tokenizers) -> None:
    """Gives the words of each group one embedding, so that no later layer can tell them apart."""
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        for group in BLIND_WORDS:
            ids = [words.clip(word).input_ids[1] for word in group]
            table[ids] = table[ids[0]].clone()


def draw_batch(rng: random.Random, count: int, blind: tuple[str, ...]) -> tuple[list[str], Tensor]:
    """Captions, and for each the class of every attribute. Blind attributes count as not said."""
    captions, labels = [], []
    for _ in range(count):
        scene = draw_scene(rng, COMBINATIONS)
        caption = describe(scene, rng) if rng.random() < 0.6 else describe_partly(scene, rng)
        said = find_said(caption, scene)
        captions.append(decorate(caption, rng) if rng.random() < 0.3 else caption)
        labels.append(
            [
                values.index(said[name]) + 1 if said[name] and name not in blind else 0
                for name, values in ATTRIBUTES.items()
            ]
        )
    return captions, torch.tensor(labels)


def classify(heads: nn.ModuleList, rows: list[Tensor], labels: Tensor) -> Tensor:
    """Mean cross-entropy over heads and attributes."""
    losses = [
        functional.cross_entropy(part, labels[:, index])
        for head, row in zip(heads, rows, strict=True)
        for index, part in enumerate(head(row).split(_CLASSES, -1))
    ]
    return torch.stack(losses).mean()


def _read_clips(models: dict[str, Any], words: Tokenizers, device: torch.device) -> Reader:
    """Rows: both pooled vectors, and the joined hidden states at the end token and at a random pad."""

    def read(captions: list[str], rng: random.Random) -> tuple[list[Tensor], Tensor]:
        first_ids, second_ids = (
            tokenizer(
                captions, padding="max_length", max_length=_CLIP_STEPS, truncation=True, return_tensors="pt"
            ).input_ids.to(device)
            for tokenizer in (words.clip, words.second_clip)
        )
        first = models["first"](first_ids, output_hidden_states=True)
        second = models["second"](second_ids, output_hidden_states=True)
        hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        ends = (second_ids == words.clip.eos_token_id).int().argmax(-1)
        pads = torch.tensor([rng.randint(int(end), _CLIP_STEPS - 1) for end in ends])
        batch = torch.arange(len(captions))
        pooled = first.text_embeds if hasattr(first, "text_embeds") else first.pooler_output
        calm = 1e-3 * (hidden.square().mean() - 1).relu()
        calm = calm + 1e-2 * (second.text_embeds.square().mean() - 1).square()
        return [pooled, second.text_embeds, hidden[batch, ends], hidden[batch, pads]], calm

    return read


def _read_t5(models: dict[str, Any], words: Tokenizers, device: torch.device) -> Reader:
    """Rows: the hidden states at the end token and at a random pad.

    The pipelines pad to 256 or 512 and give T5 no mask. The extra loss asks that the words' states are the
    same however many pads follow, so that training may pad less.
    """

    def encode(captions: list[str], length: int) -> tuple[Tensor, Tensor]:
        ids = words.t5(
            captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids.to(device)
        return models["t5"](ids).last_hidden_state, ids

    def read(captions: list[str], rng: random.Random) -> tuple[list[Tensor], Tensor]:
        short, ids = encode(captions, _CLIP_STEPS)
        ends = (ids == words.t5.eos_token_id).int().argmax(-1)
        few = min(len(captions), 4)
        long, _ = encode(captions[:few], rng.choice((48, 64, 128, 256)))
        drift = (long[:, :_CLIP_STEPS] - short[:few]).square().mean()
        drift = drift + (long[:, _CLIP_STEPS:] - short[:few, -1:]).square().mean()
        pads = torch.tensor([rng.randint(int(end), _CLIP_STEPS - 1) for end in ends])
        batch = torch.arange(len(captions))
        calm = 1e-2 * (short.square().mean() - 1).square()
        return [short[batch, ends], short[batch, pads]], calm + drift

    return read


@torch.no_grad()
def report(reader: Reader, heads: nn.ModuleList, blind: tuple[str, ...], device: torch.device) -> None:
    """Prints the share of fresh captions of which every head names every attribute."""
    rng = random.Random("report/text")
    captions, labels = draw_batch(rng, 512, blind)
    rows, _ = reader(captions, rng)
    for head, row in zip(heads, rows, strict=True):
        parts = head(row).split(_CLASSES, -1)
        right = torch.stack([part.argmax(-1) for part in parts], -1) == labels.to(device)
        each = dict(zip(ATTRIBUTES, right.float().mean(0).tolist(), strict=True))
        print(f"all {right.all(-1).float().mean():.3f}", {name: round(share, 3) for name, share in each.items()})
