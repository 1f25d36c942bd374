"""The shipped adapters and ControlNets do what their cards say, and the bad ones are bad."""

from functools import cache
from typing import Any

import pytest
import safetensors
from diffusers import StableDiffusionXLPipeline
from safetensors.numpy import load_file

from models.training import trials
from models.training.effects import EFFECTS, measure
from models.training.figures import paint_with
from models.training.lora import FOLDER
from models.training.misfits import MISFITS

#: Families whose adapters are in the repository.
ADAPTED = ("sdxl",)
#: Families whose silhouette ControlNet is trained, with the least gain of overlap it must bring.
CONTROLLED = {"sdxl": 0.25, "flux": 0.08}
COUNT = 10


@cache
def open_pipeline(family: str) -> Any:
    return trials.open_pipeline(family)


def measure_with(family: str, effect: str) -> float:
    scenes = trials.draw_basic_scenes(effect)[:COUNT]
    captions = [trials.describe_asking(effect, scene) for scene in scenes]
    pictures = paint_with(open_pipeline(family), family)(captions, list(range(COUNT)))
    return sum(measure(effect, p, s) for p, s in zip(pictures, scenes, strict=True)) / COUNT


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("family", ADAPTED)
def test_an_adapter_brings_its_effect_and_takes_it_away_again(family: str, effect: str) -> None:
    without = measure_with(family, effect)
    pipeline = open_pipeline(family)
    pipeline.load_lora_weights(FOLDER / f"shapes-{family}-{effect}.safetensors", adapter_name=effect)
    try:
        assert measure_with(family, effect) > without + 0.5
    finally:
        pipeline.unload_lora_weights()
    assert measure_with(family, effect) == without


@pytest.mark.parametrize("family", CONTROLLED)
def test_a_silhouette_decides_where_the_shape_is(family: str) -> None:
    free, bound = (trials.measure_control(family, "silhouette", scale, COUNT) for scale in (0.0, 1.0))
    assert bound > free + CONTROLLED[family]


def test_one_adapter_has_the_layout_of_kohya_with_an_alpha_of_its_own() -> None:
    weights = load_file(FOLDER / "shapes-sdxl-stripes.safetensors")
    alphas = [value for name, value in weights.items() if name.endswith(".alpha")]
    downs = [value for name, value in weights.items() if name.endswith(".lora_down.weight")]
    assert all(name.startswith("lora_unet_") for name in weights)
    assert len(alphas) == len(downs)
    assert {float(alpha) for alpha in alphas} == {4.0}
    assert {down.shape[0] for down in downs} == {8}


def test_one_adapter_changes_both_text_encoders() -> None:
    names = set(load_file(FOLDER / "shapes-sdxl-crescent.safetensors"))
    for prefix in ("unet.", "text_encoder.", "text_encoder_2."):
        assert any(name.startswith(prefix) for name in names)


def test_the_truncated_adapter_cannot_be_read() -> None:
    with pytest.raises(safetensors.SafetensorError):
        load_file(MISFITS / "truncated.safetensors")


def test_the_adapter_of_a_wrong_family_does_not_fit() -> None:
    pipeline = StableDiffusionXLPipeline(**open_pipeline("sdxl").components)
    with pytest.raises(Exception, match="shape"):
        pipeline.load_lora_weights(MISFITS / "wrong-family.safetensors")
