"""Hypernetworks by their headers: which models they fit, and what is refused by the tensor that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.errors import AdapterRefused
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.adapters.lora_files import read_lora
from contracts.weights.adapters.lora_models import read_facts
from tests.support.hypernetworks import make_networks, write_hypernetwork

Tensors = dict[str, torch.Tensor]
SETTINGS = {"activation": "relu", "activate_output": False}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """The built-in models."""
    return read_catalogue(BUILT_IN_CATALOGUE)


def test_it_is_one_of_the_loras_of_the_models_whose_attention_is_as_wide(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    file = write_hypernetwork(tmp_path / "net.safetensors", make_networks([64, 128]))
    facts = read_facts(read_lora(file), catalogue)
    assert (facts.family, facts.models, facts.kinds, facts.layout) == (
        "sdxl", ("shapes-sdxl",), ("hypernetwork",), "hypernetwork",
    )  # fmt: skip
    assert (facts.ranks, facts.changes_text, facts.dtype) == ((), False, "F32")
    assert facts.values == sum(tensor.numel() for tensor in load_file(file).values())


def test_one_that_no_model_here_can_use_is_refused_by_its_width(catalogue: Catalogue, tmp_path: Path) -> None:
    file = write_hypernetwork(tmp_path / "net.safetensors", make_networks([77, 64]))
    with pytest.raises(
        AdapterRefused, match="changes attention layers with 77 channels, and those of shapes-sdxl have"
    ):
        read_facts(read_lora(file), catalogue)


def test_where_no_checkpoint_is_here_the_width_of_prompts_tells_the_family(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    away = [
        catalogue.models[0].model_copy(update={"id": family, "family": family, "source": "org/none"})
        for family in ("sdxl", "sd15")
    ]
    elsewhere = catalogue.model_copy(update={"models": tuple(away)})
    for width, family in ((768, "sd15"), (2048, "sdxl")):
        tensors = {
            f"hypernetwork.{width}.{half}.0.weight": torch.zeros(width, width, dtype=torch.float16)
            for half in "kv"
        }
        save_file(tensors, tmp_path / "net.safetensors", {"hypernetwork": json.dumps(SETTINGS)})
        assert read_facts(read_lora(tmp_path / "net.safetensors"), elsewhere).family == family


def _without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value for key, value in tensors.items() if not key.startswith(name)}


def _with(name: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("change", "settings", "text"),
    [
        (_without("hypernetwork.64.k"), SETTINGS, "networks of width 64 lack k"),
        (_without("hypernetwork.64.v.0"), SETTINGS, r"64\.v\.0\.weight must map 64 channels, got none"),
        (_with("hypernetwork.64.k.1.weight", 64, 100), SETTINGS, r"k\.1\.weight must map 128 channels"),
        (_with("hypernetwork.64.k.1.weight", 60, 128), SETTINGS, r"must have 60 values"),
        (_with("hypernetwork.64.k.1.norm.weight", 64), SETTINGS, "norm must have weight and bias"),
        (_with("hypernetwork.64.q.0.weight", 64, 64), SETTINGS, "is not part of a hypernetwork"),
        (_with("lora_unet_x.lora_up.weight", 4, 4), SETTINGS, "'lora_unet_x.* is not part of a hypernetwork"),
        (dict, {}, "its metadata must have `hypernetwork`"),
        (dict, SETTINGS | {"activation": "exec"}, "its activation 'exec' is not one of linear, relu"),
        (dict, SETTINGS | {"activate_output": "yes"}, "must be true or false"),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(
    tmp_path: Path, change: Callable[[Tensors], Tensors], settings: dict[str, object], text: str
) -> None:
    file = write_hypernetwork(tmp_path / "net.safetensors", make_networks([64]))
    save_file(change(load_file(file)), file, {"hypernetwork": json.dumps(settings)} if settings else {})
    with pytest.raises(AdapterRefused, match=text):
        read_lora(file)
