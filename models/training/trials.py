"""Measures what an adapter or a ControlNet changes, against the same seeds without it. Trains nothing."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from models.judge import Verdict, judge, measure_overlap
from models.training.captions import HELD_OUT, describe_fully, draw_scene
from models.training.controlnet import DRAW, scatter
from models.training.drawing import Scene, render_silhouette
from models.training.effects import EFFECTS, measure
from models.training.export import CONTROLS, checkpoint_folder, control_folder
from models.training.figures import paint_with
from models.training.lora import FOLDER

_COUNT = 40
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
                pictures = paint_controlled(family, name, scale, scenes)
                _print_control(f"{name} {scale}", scenes, [judge(picture) for picture in pictures])


def measure_control(family: str, name: str, scale: float, count: int) -> float:
    """Mean overlap of what is drawn with the silhouette that was asked for."""
    scenes = draw_trial_scenes("control")[:count]
    pictures = paint_controlled(family, name, scale, scenes)
    return _mean_overlap(scenes, [judge(picture) for picture in pictures])


def draw_trial_scenes(name: str) -> list[Scene]:
    """Plain scenes of unseen combinations with the shape anywhere."""
    rng = random.Random(f"test/{name}")
    scenes = [replace(draw_scene(rng, tuple(sorted(HELD_OUT))), texture="plain") for _ in range(_COUNT)]
    return [scatter(replace(s, size=rng.choice(("medium", "large")), position="center"), rng) for s in scenes]


def paint_controlled(family: str, name: str, scale: float, scenes: Sequence[Scene]) -> list[Image.Image]:
    """Each scene from its hint and a caption with its colours alone."""
    _, kind, model, argument = _PIPELINES[family]
    folder = control_folder(family, name)
    control = getattr(diffusers, model).from_pretrained(folder, dtype=torch.float32)
    pipeline = getattr(diffusers, kind)(**open_pipeline(family).components, controlnet=control)
    pipeline.set_progress_bar_config(disable=True)
    pictures = []
    for index, scene in enumerate(scenes):
        hint = {argument: DRAW[name](scene), "controlnet_conditioning_scale": scale}
        paint = paint_with(pipeline, family, **hint)
        pictures += paint([f"a {scene.colour} shape on a {scene.background} background"], [index])
    return pictures


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
    """Prints each effect's measure without its adapter, at half weight, at full weight, and after unloading."""
    pipeline = open_pipeline(family)
    paint = paint_with(pipeline, family)
    for effect in EFFECTS:
        path = FOLDER / f"shapes-{family}-{effect}.safetensors"
        if not path.exists():
            continue
        scenes = draw_basic_scenes(effect)
        captions = [describe_asking(effect, scene) for scene in scenes]
        before = _paint_all(paint, captions)
        found = [_mean(effect, before, scenes)]
        pipeline.load_lora_weights(path, adapter_name=effect)
        for weight in (0.5, 1.0):
            pipeline.set_adapters(effect, weight)
            pictures = _paint_all(paint, captions)
            found.append(_mean(effect, pictures, scenes))
        kept = [
            judge(picture).background == scene.background for picture, scene in zip(pictures, scenes, strict=True)
        ]
        pipeline.unload_lora_weights()
        after = _paint_all(paint, captions)
        apart = max(
            int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in zip(before, after, strict=True)
        )
        print(
            f"{effect:>9}: without {found[0]:.2f}, half {found[1]:.2f}, full {found[2]:.2f}; "
            f"background kept {np.mean(kept):.2f}; unloaded differs by {apart}/255"
        )


def draw_basic_scenes(effect: str) -> list[Scene]:
    """Centred, plain scenes of trained combinations."""
    rng = random.Random(f"test/lora/{effect}")
    return [replace(draw_scene(rng), texture="plain", position="center", size="large") for _ in range(20)]


def describe_asking(effect: str, scene: Scene) -> str:
    """The test caption; only the new word has to be asked for."""
    return describe_fully(replace(scene, shape="crescent") if effect == "crescent" else scene)


def _paint_all(
    paint: Callable[[list[str], list[int]], list[Image.Image]], captions: list[str]
) -> list[Image.Image]:
    return paint(captions, list(range(len(captions))))


def _mean(effect: str, pictures: list[Image.Image], scenes: list[Scene]) -> float:
    return float(np.mean([measure(effect, p, s) for p, s in zip(pictures, scenes, strict=True)]))
