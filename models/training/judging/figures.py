"""Lets the judge look at what a checkpoint draws, and counts. Trains nothing.

Attributes count only where the caption says them or a default is meant: every test caption names the size,
and position and texture where they are not the default.
"""

import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from tqdm import tqdm

from models.judge import ATTRIBUTES, Verdict, judge
from models.training.data.captions import COMBINATIONS, describe_fully, test_scenes, training_scenes
from models.training.data.drawing import Scene, render
from models.training.data.gallery import tile, to_bytes, to_images, to_signal
from models.training.networks.export import checkpoint_folder
from models.training.stages import autoencoder

STEPS = 12
#: The defaults of models/catalogue.toml.
SETTINGS: dict[str, dict[str, Any]] = {
    "sdxl": {"guidance_scale": 3.0},
    "sd3": {"guidance_scale": 3.0, "max_sequence_length": 64},
    "flux": {"guidance_scale": 3.5, "max_sequence_length": 64},
    "sd15": {"guidance_scale": 3.0},
}
_BATCH = 10
_SPLITS = {"in-distribution": (False, 140), "held-out": (True, 60)}
_FIRST_SEED = 1000


@dataclass(frozen=True)
class Sample:
    """One asked-for scene, what was drawn, and what the judge saw."""

    scene: Scene
    image: Image.Image
    verdict: Verdict

    def right(self, attribute: str) -> bool:
        """Whether the judge saw what was asked for."""
        return bool(getattr(self.verdict, attribute) == getattr(self.scene, attribute))


#: (captions, seeds) -> images
Generate = Callable[[list[str], list[int]], list[Image.Image]]


def report(
    family: str,
    sheet: Path | None = None,
    as_json: Path | None = None,
    without_t5: bool = False,
    steps: int = STEPS,
) -> None:
    """Draws all test captions and prints the figures; saves a contact sheet and JSON where asked."""
    generate = open_generate(family, without_t5, steps)
    samples: dict[str, list[Sample]] = {}
    started = time.monotonic()
    for name, (held_out, count) in _SPLITS.items():
        samples[name] = sample(generate, test_scenes(held_out, count), name)
    seconds = (time.monotonic() - started) / sum(map(len, samples.values()))
    alone = time_alone(generate)
    rows = tabulate(samples)
    print_table(rows)
    print(f"{steps} steps, {SETTINGS[family]}; an image: {seconds:.2f} s by tens, {alone:.2f} CPU s alone")
    if sheet is not None:
        tile([s.image for part in samples.values() for s in part], columns=20).save(sheet)
    if as_json is not None:
        as_json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def report_autoencoder(latent_channels: int) -> None:
    """What the judge still sees right after an image went through the autoencoder: the ceiling of a family."""
    vae = autoencoder.load(latent_channels)
    rng, scenes = random.Random("test/autoencoder"), training_scenes("report-autoencoder", COMBINATIONS)
    chosen = list(itertools.islice(scenes, 400))
    pixels = to_bytes([render(scene, rng) for scene in chosen])
    with torch.no_grad():
        decoded = [vae.decode(vae.encode(to_signal(p)).latent_dist.mode()).sample for p in torch.split(pixels, 50)]
    images = to_images(torch.cat(decoded))
    samples = [Sample(s, p, judge(p)) for s, p in zip(chosen, images, strict=True)]
    print_table(tabulate({"decoded": samples}))


def print_table(rows: dict[str, dict[str, float]]) -> None:
    """Aligned for a terminal and for a model card."""
    width = max(map(len, rows))
    print(f"{'':{width}}    n  " + "  ".join(f"{name:>10}" for name in (*ATTRIBUTES, "all")))
    for name, row in rows.items():
        shares = "  ".join(f"{row[key]:>10.3f}" for key in (*ATTRIBUTES, "all"))
        print(f"{name:{width}}  {row['n']:>3.0f}  {shares}")


def time_alone(generate: Generate) -> float:
    """CPU seconds of one image drawn by itself on one core; the least of three."""
    threads, spent = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for seed in range(3):
        started = time.process_time()
        generate(["a red circle on a blue background"], [seed])
        spent.append(time.process_time() - started)
    torch.set_num_threads(threads)
    return min(spent)


def open_generate(family: str, without_t5: bool = False, steps: int = STEPS) -> Generate:
    """The family's own pipeline from its folder; SD3's may leave its T5 out."""
    missing = {"text_encoder_3": None, "tokenizer_3": None} if without_t5 else {}
    pipeline = DiffusionPipeline.from_pretrained(checkpoint_folder(family), dtype=torch.float32, **missing)
    pipeline.set_progress_bar_config(disable=True)
    return generate_with(pipeline, family, num_inference_steps=steps)


def generate_with(pipeline: Any, family: str, **arguments: Any) -> Generate:
    """Calls a pipeline with one generator per image."""

    def generate(captions: list[str], seeds: list[int]) -> list[Image.Image]:
        size = {"height": 64, "width": 64, "num_inference_steps": STEPS}
        settings = {**size, **SETTINGS[family], **arguments}
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        images: list[Image.Image] = pipeline(captions, generator=generators, **settings).images
        return images

    return generate


def sample(generate: Generate, scenes: Sequence[Scene], name: str) -> list[Sample]:
    """Draws the scenes' captions, each with its own seed, and judges them."""
    samples: list[Sample] = []
    for start in tqdm(range(0, len(scenes), _BATCH), desc=name, mininterval=5.0):
        part = scenes[start : start + _BATCH]
        seeds = [_FIRST_SEED + start + index for index in range(len(part))]
        images = generate([describe_fully(scene) for scene in part], seeds)
        samples += [Sample(s, p, judge(p)) for s, p in zip(part, images, strict=True)]
    return samples


def tabulate(samples: dict[str, list[Sample]]) -> dict[str, dict[str, float]]:
    """Shares by part, and of the plain, centred, medium or large scenes apart."""
    everything = [s for part in samples.values() for s in part]
    groups = {**samples, "all captions": everything}
    groups["basic"] = [s for s in everything if is_basic(s.scene)]
    held_out = samples.get("held-out", [])
    groups["basic, held-out"] = [s for s in held_out if is_basic(s.scene)]
    for shape in sorted({s.scene.shape for s in everything}):
        groups[shape] = [s for s in everything if s.scene.shape == shape]
    for size in ("small", "medium", "large"):
        groups[size] = [s for s in everything if s.scene.size == size]
    groups["off centre"] = [s for s in everything if s.scene.position != "center"]
    groups["textured"] = [s for s in everything if s.scene.texture != "plain"]
    return {name: count(part) for name, part in groups.items() if part}


def is_basic(scene: Scene) -> bool:
    """Plain, in the middle and not small: what everybody asks for first."""
    return scene.size != "small" and scene.position == "center" and scene.texture == "plain"


def count(samples: Sequence[Sample]) -> dict[str, float]:
    """The share of right attributes, one by one and all six together."""
    total = len(samples)
    shares = {a: round(sum(s.right(a) for s in samples) / total, 3) for a in ATTRIBUTES}
    whole = sum(all(s.right(a) for a in ATTRIBUTES) for s in samples) / total
    return {"n": total, **shares, "all": round(whole, 3)}
