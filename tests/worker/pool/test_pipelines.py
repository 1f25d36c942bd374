"""Pipelines that ask where a module's weights are: these may be elsewhere until it runs."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from worker.pool.pipelines import computing_on


@pytest.mark.parametrize(
    ("class_name", "entry"),
    [
        ("Flux2Pipeline", "prepare_image_latents"),
        ("Flux2Pipeline", "__call__"),
        ("Flux2KleinPipeline", "_get_qwen3_prompt_embeds"),
        ("Flux2KleinInpaintPipeline", "prepare_latents"),
        ("Flux2KleinInpaintPipeline", "prepare_image_latents"),
    ],
)
def test_a_pipeline_that_asks_where_a_module_is_hears_where_the_worker_computes(
    class_name: str, entry: str
) -> None:
    device, module = torch.device("meta"), torch.nn.Linear(1, 1)
    stock = getattr(diffusers, class_name)

    ours = getattr(computing_on(device, stock), entry)

    def told(function: Any) -> torch.device:
        asked = getattr(function, "__wrapped__", function)
        found: torch.device = asked.__globals__["get_module_execution_device"](module)
        return found

    assert (told(ours), told(getattr(stock, entry))) == (device, torch.device("cpu"))
