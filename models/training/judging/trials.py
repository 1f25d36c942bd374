"""Measures what an adapter or a ControlNet changes, against the same seeds without it. Trains nothing."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from models.judge import Verdict, judge, measure_overlap
from models.training.data.captions import HELD_OUT, describe_fully, draw_scene
from models.training.data.drawing import Scene, render_silhouette
from models.training.data.effects import EFFECTS, measure
from models.training.judging.figures import generate_with
from models.training.networks.export import CONTROLS, checkpoint_folder, control_folder
from models.training.stages.controlnet import DRAW, scatter
from models.training.stages.lora import FOLDER

_COUNT = 50
_ADAPTER_COUNT = 20
#: Two effects that are tried together where a family has both.
PAIR = ("stripes", "outline")
_SCALES = (0.0, 0.5, 1.0)
_PIPELINES = {
    "sdxl": ("StableDiffusionXLPipeline", "StableDiffusionXLControlNetPipeline", "ControlNetModel", "image"),
    "sd3": (
        "StableDiffusion3Pipeline",
        "StableDiffusion3ControlNetPipeline",
        "SD3ControlNetModel",
        "control_image",
    ),
    "flux": ("FluxPipeline", "FluxControlNetPipeline", "FluxControlNetModel", "control_image"),
    "sd15": ("StableDiffusionPipeline", "StableDiffusionControlNetPipeline", "ControlNetModel", "image"),
}


def open_pipeline(family: str) -> Any:
    """The family's text-to-image pipeline."""
    kind = getattr(diffusers, _PIPELINES[family][0])
    pipeline = kind.from_pretrained(checkpoint_folder(family), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def report_controls(family: str) -> None:
    """Prints overlap with the hint, and what the judge sees, for a caption that names no shape."""
    scenes = draw_trial_scenes("control")
    for name in CONTROLS:
        if control_folder(family, name).exists():
            for scale in _SCALES:
                images = generate_controlled(family, name, scale, scenes)
                _print_control(f"{name} {scale}", scenes, [judge(image) for image in images])


def measure_control(family: str, name: str, scale: float, count: int) -> float:
    """Mean overlap of what is drawn with the silhouette that was asked for."""
    scenes = draw_trial_scenes("control")[:count]
    images = generate_controlled(family, name, scale, scenes)
    return _mean_overlap(scenes, [judge(image) for image in images])


def draw_trial_scenes(name: str) -> list[Scene]:
    """Plain scenes of unseen combinations with the shape anywhere."""
    rng = random.Random(f"test/{name}")
    scenes = [replace(draw_scene(rng, tuple(sorted(HELD_OUT))), texture="plain") for _ in range(_COUNT)]
    return [scatter(replace(s, size=rng.choice(("medium", "large")), position="center"), rng) for s in scenes]


def generate_controlled(family: str, name: str, scale: float, scenes: Sequence[Scene]) -> list[Image.Image]:
    """Each scene from its hint and a caption with its colours alone."""
    _, kind, model, argument = _PIPELINES[family]
    folder = control_folder(family, name)
    control = getattr(diffusers, model).from_pretrained(folder, dtype=torch.float32)
    pipeline = getattr(diffusers, kind)(**open_pipeline(family).components, controlnet=control)
    pipeline.set_progress_bar_config(disable=True)
    images = []
    for index, scene in enumerate(scenes):
        hint = {argument: DRAW[name](scene), "controlnet_conditioning_scale": scale}
        generate = generate_with(pipeline, family, **hint)
        images += generate([f"a {scene.colour} shape on a {scene.background} background"], [index])
    return images


def _print_control(title: str, scenes: Sequence[Scene], verdicts: Sequence[Verdict]) -> None:
    pairs = list(zip(scenes, verdicts, strict=True))
    shares = {
        name: np.mean([getattr(v, name) == getattr(s, name) for s, v in pairs])
        for name in ("colour", "background", "shape")
    }
    overlap = _mean_overlap(scenes, verdicts)
    print(f"{title:>16}: overlap {overlap:.2f} ", {name: round(float(x), 2) for name, x in shares.items()})


def _mean_overlap(scenes: Sequence[Scene], verdicts: Sequence[Verdict]) -> float:
    hints = [np.asarray(render_silhouette(scene).convert("L")) > 127 for scene in scenes]
    pairs = zip(verdicts, hints, strict=True)
    return float(np.mean([measure_overlap(verdict.mask, hint) for verdict, hint in pairs]))


def report_adapters(family: str) -> None:
    """Prints each effect's measure without its adapter, by scale, and after unloading; then two together."""
    pipeline = open_pipeline(family)
    for effect in EFFECTS:
        if adapter_path(family, effect).exists():
            _report_adapter(pipeline, family, effect)
    if all(adapter_path(family, effect).exists() for effect in PAIR):
        first, second = measure_pair(pipeline, family, _ADAPTER_COUNT)
        print(f"together: {PAIR[0]} {first:.2f}, {PAIR[1]} {second:.2f}")


def _report_adapter(pipeline: Any, family: str, effect: str) -> None:
    scenes = draw_basic_scenes(effect)
    before = generate_asking(pipeline, family, effect, scenes)
    pipeline.load_lora_weights(adapter_path(family, effect), adapter_name=effect)
    found = []
    for scale in _SCALES:
        pipeline.set_adapters(effect, scale)
        images = generate_asking(pipeline, family, effect, scenes)
        found.append(mean_effect(effect, images, scenes))
    pairs = list(zip(images, scenes, strict=True))
    kept = np.mean([judge(image).background == scene.background for image, scene in pairs])
    pipeline.unload_lora_weights()
    after = generate_asking(pipeline, family, effect, scenes)
    changes = [np.asarray(a, int) - np.asarray(b, int) for a, b in zip(before, after, strict=True)]
    apart = int(np.abs(changes).max())
    print(
        f"{effect:>8}: without {mean_effect(effect, before, scenes):.2f}, "
        + ", ".join(f"at {scale} {share:.2f}" for scale, share in zip(_SCALES, found, strict=True))
        + f"; background kept {kept:.2f}; unloaded differs by {apart}/255"
    )


def measure_pair(pipeline: Any, family: str, count: int) -> tuple[float, float]:
    """Both effects' measures with both adapters at full scale."""
    scenes = draw_basic_scenes("pair")[:count]
    for effect in PAIR:
        pipeline.load_lora_weights(adapter_path(family, effect), adapter_name=effect)
    pipeline.set_adapters(list(PAIR), [1.0, 1.0])
    images = generate_asking(pipeline, family, PAIR[0], scenes)
    pipeline.unload_lora_weights()
    first, second = (mean_effect(effect, images, scenes) for effect in PAIR)
    return first, second


def adapter_path(family: str, effect: str) -> Path:
    """Where an adapter lies."""
    return FOLDER / f"shapes-{family}-{effect}.safetensors"


def generate_asking(pipeline: Any, family: str, effect: str, scenes: Sequence[Scene]) -> list[Image.Image]:
    """Each scene from its test caption, in which only the new word is asked for."""
    captions = [describe_fully(replace(s, shape="crescent") if effect == "crescent" else s) for s in scenes]
    return generate_with(pipeline, family)(captions, list(range(len(captions))))


def mean_effect(effect: str, images: Sequence[Image.Image], scenes: Sequence[Scene]) -> float:
    """The effect's mean measure."""
    return float(np.mean([measure(effect, p, s) for p, s in zip(images, scenes, strict=True)]))


def draw_basic_scenes(effect: str) -> list[Scene]:
    """Centred, plain scenes of trained combinations."""
    rng = random.Random(f"test/lora/{effect}")
    scenes = [draw_scene(rng) for _ in range(_ADAPTER_COUNT)]
    return [replace(s, texture="plain", position="center", size="large") for s in scenes]
