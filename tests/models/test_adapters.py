"""The shipped adapters and ControlNets do what their cards say, and the bad ones are bad."""

from functools import cache
from typing import Any

import pytest
import safetensors
from diffusers import StableDiffusionXLPipeline
from safetensors.numpy import load_file

from models.training import trials
from models.training.effects import EFFECTS
from models.training.export import CONTROLS, FAMILIES
from models.training.lora import FOLDER, HOLDS
from models.training.misfits import MISFITS

#: Least mean overlap of a control's silhouette with what is drawn. The cards have the figures over 50.
LEAST_OVERLAP = 0.8
COUNT = 4


@cache
def open_pipeline(family: str) -> Any:
    return trials.open_pipeline(family)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("effect", EFFECTS)
def test_an_adapter_brings_its_effect_by_its_scale_and_takes_it_away_again(family: str, effect: str) -> None:
    pipeline, scenes = open_pipeline(family), trials.draw_basic_scenes(effect)[:COUNT]
    pipeline.load_lora_weights(trials.adapter_path(family, effect), adapter_name=effect)
    pictures = {}
    try:
        for scale in (0.0, 0.5, 1.0):
            pipeline.set_adapters(effect, scale)
            pictures[scale] = trials.paint_asking(pipeline, family, effect, scenes)
    finally:
        pipeline.unload_lora_weights()
    none, half, full = (trials.mean_effect(effect, pictures[scale], scenes) for scale in pictures)
    assert full > none + 0.5
    assert none - 0.05 <= half <= full + 0.05
    after = trials.paint_asking(pipeline, family, effect, scenes)
    assert [picture.tobytes() for picture in after] == [picture.tobytes() for picture in pictures[0.0]]


@pytest.mark.parametrize("family", FAMILIES)
def test_two_adapters_together_show_both_effects(family: str) -> None:
    first, second = trials.measure_pair(open_pipeline(family), family, COUNT)
    assert min(first, second) > 0.4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", CONTROLS)
def test_a_control_decides_where_the_shape_is(family: str, kind: str) -> None:
    free, bound = (trials.measure_control(family, kind, scale, COUNT) for scale in (0.0, 1.0))
    assert bound > max(LEAST_OVERLAP, free + 0.15)


def test_one_adapter_has_the_layout_of_kohya_with_an_alpha_of_its_own() -> None:
    weights = load_file(FOLDER / "shapes-sdxl-stripes.safetensors")
    alphas = [value for name, value in weights.items() if name.endswith(".alpha")]
    downs = [value for name, value in weights.items() if name.endswith(".lora_down.weight")]
    assert all(name.startswith("lora_unet_") for name in weights)
    assert len(alphas) == len(downs)
    assert {float(alpha) for alpha in alphas} == {4.0}
    assert {down.shape[0] for down in downs} == {8}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_adapter_with_a_new_word_changes_the_text_encoders_too(family: str) -> None:
    names = set(load_file(FOLDER / f"shapes-{family}-crescent.safetensors"))
    for part in (HOLDS[family].denoiser, *HOLDS[family].text_encoders):
        assert any(name.startswith(f"{part}.") for name in names), part


def test_the_truncated_adapter_cannot_be_read() -> None:
    with pytest.raises(safetensors.SafetensorError):
        load_file(MISFITS / "truncated.safetensors")


def test_the_adapter_of_a_wrong_family_does_not_fit() -> None:
    pipeline = StableDiffusionXLPipeline(**open_pipeline("sdxl").components)
    with pytest.raises(Exception, match="shape"):
        pipeline.load_lora_weights(MISFITS / "wrong-family.safetensors")
