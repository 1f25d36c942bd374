"""The table of floating-point operations, beside torch's count on the meta device."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.architectures import components
from contracts.memory.activation_tables import class_of
from contracts.memory.activations import WorkloadShape
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.configs import read_config
from contracts.weights.counts.flops import find_flops, flops_of
from counting.component_calls import Inputs, build, run_of
from counting.flops import TABLE, count_flops, render_flops
from tests.support.combinations import ALL

MODELS = BUILT_IN_CATALOGUE.parent
TINY = [
    "shapes-sd3/vae",
    "shapes-flux/text_encoder_2",
    *(["shapes-sdxl/unet", "shapes-sd3/transformer", "shapes-flux/transformer"] if ALL else []),
]
#: One of each class that a test can afford, where the environment asks for all.
FULL_SIZE = {class_of(config): config for _, config in components()} if ALL else {}


def test_a_table_of_operations_says_what_is_counted_now() -> None:
    """If it fails after an update of torch: `python -m bench.architectures --write` writes a new one."""
    text = TABLE.read_text(encoding="utf-8")
    rows = json.loads(text)
    assert render_flops(rows) == text
    assert json.loads(json.dumps(count_flops([read_config(MODELS / "shapes-sd3/text_encoder_2")])))[0] in rows


def test_every_published_and_shipped_component_has_its_operations() -> None:
    classes = {row["class"] for row in json.loads(TABLE.read_text(encoding="utf-8"))}
    assert {class_of(config) for _, config in components()} <= classes


@pytest.mark.parametrize(
    "config",
    [*(read_config(MODELS / name) for name in TINY), *FULL_SIZE.values()],
    ids=[*TINY, *FULL_SIZE],
)
def test_operations_are_those_that_torch_counts_at_sizes_that_were_not_counted(config: Mapping[str, Any]) -> None:
    module, class_name = build(config), class_of(config)
    call = Inputs(config, WorkloadShape(256, 192, 3, guided=False, text_tokens=80))
    arguments = call.of(class_name)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        run_of(module, call)()
    parameters = sum(parameter.numel() for parameter in module.parameters())
    entry = "decode" if hasattr(module, "decode") else "__call__"
    known = flops_of(find_flops(class_name, parameters), entry, arguments)
    assert known == pytest.approx(counted.get_total_flops(), rel=1e-9)


def test_a_component_of_another_size_or_class_has_none() -> None:
    """An inpaint model, with a few more channels of input, counts as the model that it was made from."""
    unet = 859520964
    assert find_flops("UNet2DConditionModel", unet + 5 * 320 * 9) == find_flops("UNet2DConditionModel", unet) != {}
    assert find_flops("UNet2DConditionModel", 2 * unet) == {}
    assert find_flops("SomethingElse", unet) == {}
    assert flops_of({}, "__call__", {"sample": torch.zeros(1)}) is None


def test_images_that_a_language_model_reads_are_not_counted() -> None:
    row = find_flops("T5EncoderModel", 533376)
    ids = torch.zeros(1, 8, dtype=torch.long)
    assert flops_of(row, "__call__", {"input_ids": ids})
    assert flops_of(row, "__call__", {"input_ids": ids, "pixel_values": torch.zeros(1, 3, 8, 8)}) is None
