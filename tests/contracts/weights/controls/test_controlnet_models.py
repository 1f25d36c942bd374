"""Which models a ControlNet's file suits, by headers alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.catalogue.reader import read_catalogue
from contracts.errors import AdapterRefused
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.controls.controlnet_files import read_controlnet
from contracts.weights.controls.controlnet_models import find_models

CATALOGUE = read_catalogue(BUILT_IN_CATALOGUE)
FOLDER = BUILT_IN_CATALOGUE.parent / "controlnets" / "shapes-sdxl-silhouette"
TENSORS = read_controlnet(FOLDER / "diffusion_pytorch_model.safetensors")
LAYER = "mid_block.resnets.0.conv1.weight"


def test_it_suits_the_models_whose_encoder_it_copies() -> None:
    assert find_models(TENSORS, CATALOGUE) == ("sdxl", ["shapes-sdxl"])


def test_a_layer_too_many_too_few_or_of_another_size_is_named() -> None:
    less = {name: tensor for name, tensor in TENSORS.items() if name != LAYER}
    wider = {**TENSORS, LAYER: replace(TENSORS[LAYER], shape=(1, 2))}
    more = {**TENSORS, "mid_block.more.weight": TENSORS[LAYER]}
    for tensors, words in (
        (less, f"lacks {LAYER}"),
        (wider, f"has {LAYER} of"),
        (more, "has mid_block.more.weight"),
    ):
        with pytest.raises(AdapterRefused, match=words):
            find_models(tensors, CATALOGUE)
