"""What components hold while they work: the formula beside a count of every tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from bench.architectures import compare_work, parts
from contracts.memory.activation_formulas import encodes_controls, handed_work, held_work, work_of
from contracts.memory.activations import ActivationCost, Retained, WorkloadShape, peak_values
from contracts.memory.components import Role, size_component
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.architectures import read_architectures
from contracts.weights.parameter_counts import read_config

MODELS = BUILT_IN_CATALOGUE.parent
_DENOISERS = {"sdxl": "unet", "sd3": "transformer", "flux": "transformer"}
SHAPES = [
    (part, WorkloadShape(side, side, images, guided=family != "flux", text_tokens=64))
    for family, denoiser in _DENOISERS.items()
    for part in (f"shapes-{family}/{denoiser}", f"shapes-{family}/vae", f"controlnets/shapes-{family}-canny")
    for side, images in ((64, 1), (256, 2))
]


@pytest.mark.parametrize(("component", "shape"), SHAPES, ids=lambda one: str(one).removeprefix("Canvas"))
def test_the_shapes_models_hold_what_the_formula_says(component: str, shape: WorkloadShape) -> None:
    config = read_config(MODELS / component)
    counted, formula = compare_work(config, shape, torch.float32)
    assert counted * 0.98 < formula < counted * 1.2
    if not component.endswith("/vae"):
        counted, formula = compare_work(config, shape, torch.float32, streamed=True)
        assert counted * 0.98 < formula < counted * 1.25


@pytest.mark.parametrize("architecture", read_architectures(), ids=lambda one: one.id)
def test_the_full_size_models_hold_what_the_formula_says(architecture: Any) -> None:
    shape = WorkloadShape(1024, 1024, images=2, guided=architecture.family != "flux")
    for name, (_, config) in parts(architecture).items():
        if not name.startswith("text_encoder"):
            counted, formula = compare_work(config, shape, torch.bfloat16)
            assert counted * 0.98 < formula < counted * 1.08, name


@pytest.mark.parametrize("architecture", read_architectures(), ids=lambda one: one.id)
def test_the_full_size_models_hold_what_the_formula_says_while_their_layers_come_and_go(architecture: Any) -> None:
    """Of those whose blocks are too large to be streamed whole."""
    shape = WorkloadShape(512, 512, guided=architecture.family != "flux")
    for name, (count, config) in parts(architecture).items():
        denoises = name in ("unet", "transformer", "controlnet")
        if denoises and size_component("-", Role.DENOISER, count, 2, config).groups == "leaf":
            counted, formula = compare_work(config, shape, torch.bfloat16, streamed=True)
            assert counted * 0.98 < formula < counted * 1.15


def test_more_of_anything_never_takes_less() -> None:
    small = WorkloadShape(512, 512, text_tokens=64)
    for larger in (WorkloadShape(1024, 512, text_tokens=64), WorkloadShape(512, 512, text_tokens=512)):
        for architecture in read_architectures():
            for config in architecture.configs.values():
                moments = work_of(config)
                assert peak_values(moments, larger, 1) >= peak_values(moments, small, 1) > 0
                assert peak_values(moments, small, 2) > peak_values(moments, small, 1)


def test_a_class_unknown_here_has_no_formula() -> None:
    unknown: list[Mapping[str, Any]] = [{}, {"_class_name": "SomethingElse"}, {"architectures": []}]
    assert [work_of(config) for config in unknown] == [(), (), ()]
    assert {handed_work(config) for config in unknown} == {ActivationCost()}
    assert {held_work(config) for config in unknown} == {Retained()}
    assert not encodes_controls({"_class_name": "ControlNetModel"})
    assert encodes_controls({"_class_name": "SD3ControlNetModel"})
