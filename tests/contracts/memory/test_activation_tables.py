"""Tables of activations: what they say of components, beside a count of every tensor on the meta device."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
import torch

from bench.architectures import TABLES, components, parts
from contracts.memory.activation_tables import class_of, find_activations
from contracts.memory.activations import UNKNOWN, WorkloadShape, peak_values, without_workspaces
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.configs import read_config
from contracts.weights.counts.architectures import find_architecture, read_architectures
from counting.activations import count_activations, render
from counting.component_calls import Inputs, build, run_of
from counting.live_tensors import Follower
from tests.support.combinations import ALL, covering, usual_or_all

MODELS = BUILT_IN_CATALOGUE.parent
COMPONENTS = ["shapes-sdxl/unet", "shapes-flux/transformer", "shapes-flux/text_encoder_2", "shapes-flux/vae"]
#: One for each class of denoisers, the largest of them in `make judge`: others have the same table's formulas.
FULL_SIZE = ["sd1.5", *(["sd3-medium", "flux.1-schnell"] if ALL else [])]


@pytest.mark.parametrize(
    "component",
    usual_or_all(
        "shapes-sd3/text_encoder",
        ("shapes-sd3/text_encoder", "shapes-sdxl/vae", "controlnets/shapes-sdxl-canny", "shapes-sd3/transformer"),
    ),
)
def test_a_table_says_what_is_counted_now(component: str) -> None:
    """If it fails after an update of diffusers: `python -m bench.architectures --write` writes new tables."""
    config = read_config(MODELS / component)
    entry = json.loads(json.dumps(count_activations(config)))
    table = (TABLES / f"{class_of(config)}.json").read_text(encoding="utf-8")
    assert entry in json.loads(table)
    assert render(json.loads(table)) == table


def test_every_published_and_shipped_component_was_counted() -> None:
    for name, config in components():
        activations = find_activations(config)
        assert activations.peaks, name
        assert activations.counted, name


def compare(
    config: Mapping[str, Any], shape: WorkloadShape, *, streamed: bool, cudnn: bool = False
) -> tuple[float, float]:
    """Values counted now, and by the table; with the weights at work where these are streamed."""
    module, activations = build(config), find_activations(config)
    plain, with_workspaces = Follower(module, torch.bfloat16.itemsize).follow(
        run_of(module, Inputs(config, shape))
    )
    steps = with_workspaces if cudnn else plain
    costs = (activations if cudnn else without_workspaces(activations)).peaks
    if not streamed:
        return float(steps[:, 0].max()), peak_values(costs, shape, shape.images)
    planned = (peak_values([cost], shape, shape.images) + (cost.layers or 0) for cost in costs)
    return float(steps.sum(axis=1).max()), max(planned)


@pytest.mark.parametrize(
    ("component", "images", "streamed"), covering([*product(COMPONENTS, (1, 4), (False, True))])
)
def test_a_table_is_right_for_sizes_that_were_not_counted(component: str, images: int, streamed: bool) -> None:
    """Tables of positions, which are there once a call, count for each image: hence up to 6 % in tiny models."""
    shape = WorkloadShape(192, 320, images, guided=False, text_tokens=77)
    counted, planned = compare(read_config(MODELS / component), shape, streamed=streamed)
    assert 0.995 * counted < planned < 1.06 * counted


@pytest.mark.parametrize(
    ("component", "streamed"), covering([*product(["shapes-sdxl/unet", "shapes-flux/vae"], (False, True))])
)
def test_a_table_is_right_for_convolutions_in_cudnn(component: str, streamed: bool) -> None:
    shape = WorkloadShape(192, 320, 2, guided=False, text_tokens=77)
    counted, planned = compare(read_config(MODELS / component), shape, streamed=streamed, cudnn=True)
    assert 0.995 * counted < planned < 1.06 * counted


@pytest.mark.parametrize(
    "architecture",
    [one for one in read_architectures() if one.id in FULL_SIZE],
    ids=lambda architecture: architecture.id,
)
def test_a_full_size_denoiser_holds_what_its_table_says(architecture: Any) -> None:
    name = next(name for name in ("unet", "transformer") if name in architecture.configs)
    shape = WorkloadShape(1024, 1024, guided=False)
    counted, planned = compare(parts(architecture)[name][1], shape, streamed=False)
    assert 0.995 * counted < planned < 1.01 * counted


@pytest.mark.parametrize(
    ("component", "changes"),
    [
        ("shapes-sd3/transformer", {"num_attention_heads": 8, "caption_projection_dim": 256}),
        ("controlnets/shapes-flux-canny", {"num_layers": 3, "num_single_layers": 2}),
        ("shapes-flux/transformer", {"num_attention_heads": 8}),
        ("shapes-flux/text_encoder_2", {"d_model": 256, "d_ff": 512, "num_heads": 8}),
    ][: None if ALL else 2],
)
def test_another_configuration_gets_the_scaled_activations_of_the_nearest(
    component: str, changes: dict[str, Any]
) -> None:
    """Rather too much than too little."""
    config = {**read_config(MODELS / component), **changes}
    assert not find_activations(config).counted
    counted, planned = compare(config, WorkloadShape(192, 128, 2, guided=False, text_tokens=128), streamed=False)
    assert 0.9 * counted < planned < 1.6 * counted


def test_an_unknown_class_has_no_activations() -> None:
    unknown: list[Mapping[str, Any]] = [{}, {"_class_name": "SomethingElse"}, {"architectures": []}]
    assert [find_activations(config) for config in unknown] == [UNKNOWN] * 3


def test_only_transformers_controlnets_have_their_images_encoded() -> None:
    nets = {
        family: read_config(MODELS / f"controlnets/shapes-{family}-canny") for family in ("sdxl", "sd3", "flux")
    }
    encoded = {family: find_activations(config).encodes_controls for family, config in nets.items()}
    assert encoded == {"sdxl": False, "sd3": True, "flux": True}


def test_a_unet_of_latents_is_not_counted_as_one_of_pixels() -> None:
    """A convolution over pixels takes 64 times what one over latents takes."""
    pixels = find_architecture("deepfloyd", "DeepFloyd/IF-I-XL-v1.0")
    assert pixels is not None
    config = pixels.configs["unet"]
    of_latents = find_activations({**config, "in_channels": 4, "transformer_layers_per_block": 1})
    assert find_activations(config).counted
    assert not of_latents.counted
    assert 10 * of_latents.peaks[0].pixel < find_activations(config).peaks[0].pixel
