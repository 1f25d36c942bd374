"""The shipped LoRA adapters and ControlNets have the effects that their cards state."""

from functools import cache
from typing import Any

import pytest

from models.training.data.effects import EFFECTS
from models.training.judging import trials
from models.training.networks.export import CONTROLS, FAMILIES, control_folder

#: Least mean overlap of a control image's silhouette with the generated shape. The cards have the figures over 50.
LEAST_OVERLAP = 0.8
COUNT = 4


#: What is shipped; `tests/models/test_manifest.py` has the files' names.
ADAPTERS = [(f, effect) for f in FAMILIES for effect in EFFECTS if trials.adapter_path(f, effect).exists()]
PAIRS = [f for f in FAMILIES if all((f, effect) in ADAPTERS for effect in trials.PAIR)]
NETS = [(f, kind) for f in FAMILIES for kind in CONTROLS if control_folder(f, kind).exists()]


@cache
def open_pipeline(family: str) -> Any:
    return trials.open_pipeline(family)


@pytest.mark.parametrize(("family", "effect"), ADAPTERS)
def test_an_adapter_has_its_effect_by_scale_and_leaves_nothing_behind(family: str, effect: str) -> None:
    pipeline, scenes = open_pipeline(family), trials.draw_basic_scenes(effect)[:COUNT]
    pipeline.load_lora_weights(trials.adapter_path(family, effect), adapter_name=effect)
    images = {}
    try:
        for scale in (0.0, 0.5, 1.0):
            pipeline.set_adapters(effect, scale)
            images[scale] = trials.generate_asking(pipeline, family, effect, scenes)
    finally:
        pipeline.unload_lora_weights()
    none, half, full = (trials.mean_effect(effect, images[scale], scenes) for scale in images)
    assert full > none + 0.5
    assert none - 0.05 <= half <= full + 0.05
    after = trials.generate_asking(pipeline, family, effect, scenes)
    assert [image.tobytes() for image in after] == [image.tobytes() for image in images[0.0]]


@pytest.mark.parametrize("family", PAIRS)
def test_two_adapters_together_show_both_effects(family: str) -> None:
    first, second = trials.measure_pair(open_pipeline(family), family, COUNT)
    assert min(first, second) > 0.4


@pytest.mark.parametrize(("family", "kind"), NETS)
def test_a_controlnet_decides_where_the_shape_is(family: str, kind: str) -> None:
    without, controlled = (trials.measure_control(family, kind, scale, COUNT) for scale in (0.0, 1.0))
    assert controlled > max(LEAST_OVERLAP, without + 0.15)
