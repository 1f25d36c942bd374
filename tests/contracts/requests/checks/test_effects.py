"""A field that could not act beside the others is refused, in words that name both and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem, InvalidRequest
from contracts.requests.checks.validation import check
from contracts.requests.schema import REQUESTS

EDGES = {"controlnet": "edges", "image": "AAAA"}


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    models = (
        ModelSpec(id="xl", family="sdxl", source="xl"),
        ModelSpec(id="turbo", family="sdxl", source="turbo", refuses=("guidance_scale",)),
        ModelSpec(id="three", family="sd3", source="three"),
        ModelSpec(id="one", family="flux", source="one"),
    )
    control = ControlNetSpec(id="edges", family="sdxl", source="edges")
    return Catalogue(root=tmp_path, default_model="xl", models=models, controlnets=(control,))


def problems(catalogue: Catalogue, task: str, **fields: Any) -> list[FieldProblem]:
    request = REQUESTS[task].model_validate({"prompt": "a red circle", **fields})  # type: ignore[index]
    try:
        check(request, catalogue)
    except InvalidRequest as refused:
        return list(refused.problems)
    return []


WITHOUT_EFFECT: list[tuple[str, dict[str, Any], str, str]] = [
    ("txt2img", {"guidance_scale": 1, "negative_prompt": "blue"}, "negative_prompt", "guidance_scale is 1"),
    ("txt2img", {"guidance_scale": 0, "negative_prompt": "blue"}, "negative_prompt", "guidance_scale is 0"),
    (
        "img2img",
        {"image": "AAAA", "guidance_scale": 1, "negative_prompt": "blue"},
        "negative_prompt",
        "guidance_scale",
    ),
    ("txt2img", {"guidance_scale": 0, "guidance_rescale": 0.7}, "guidance_rescale", "guidance_scale is 0"),
    ("txt2img", {"guidance_scale": 0.5}, "guidance_scale", "between 0 and 1"),
    ("txt2img", {"model": "three", "guidance_scale": 0.99}, "guidance_scale", "got 0.99"),
    (
        "txt2img",
        {"model": "three", "guidance_scale": 1, "negative_prompt": "b"},
        "negative_prompt",
        "guidance_scale",
    ),
    (
        "txt2img",
        {"model": "turbo", "negative_prompt": "blue"},
        "negative_prompt",
        "turbo runs without guidance_scale",
    ),
    (
        "txt2img",
        {"model": "turbo", "guidance_rescale": 0.5},
        "guidance_rescale",
        "turbo runs without guidance_scale",
    ),
    ("txt2img", {"model": "one", "negative_prompt": "blue"}, "negative_prompt", "true_cfg_scale is 1"),
    ("txt2img", {"model": "one", "true_cfg_scale": 0.5}, "true_cfg_scale", "below 1"),
    ("txt2img", {"output_quality": 50}, "output_quality", "output_format is png"),
    (
        "controlnet",
        {"controls": [EDGES | {"guidance_end": 0.01}]},
        "controls.0.guidance_end",
        "guidance_start (0)",
    ),
    (
        "controlnet",
        {"controls": [EDGES, EDGES | {"guidance_start": 0.5, "guidance_end": 0.55}], "num_inference_steps": 4},
        "controls.1.guidance_end",
        "none of the 4 steps",
    ),
    (
        "controlnet",
        {"image": "AAAA", "strength": 0.1, "controls": [EDGES | {"guidance_end": 0.2}]},
        "controls.0.guidance_end",
        "none of the 3 steps",
    ),
]


@pytest.mark.parametrize(("task", "fields", "field", "reason"), WITHOUT_EFFECT)
def test_a_field_without_effect_is_refused_with_the_other_field_and_the_remedy(
    catalogue: Catalogue, task: str, fields: dict[str, Any], field: str, reason: str
) -> None:
    (problem,) = problems(catalogue, task, **fields)

    assert problem.field == field
    assert reason in problem.message
    assert any(remedy in problem.message for remedy in ("remove", "widen"))


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("txt2img", {"negative_prompt": "blue", "guidance_rescale": 0.5}),
        ("txt2img", {"guidance_scale": 1, "negative_prompt": "", "guidance_rescale": 0}),
        ("txt2img", {"guidance_scale": 0}),
        ("txt2img", {"model": "one", "guidance_scale": 0.5}),
        ("txt2img", {"model": "one", "negative_prompt": ""}),
        ("txt2img", {"model": "one", "negative_prompt": "blue", "true_cfg_scale": 2}),
        ("txt2img", {"model": "turbo"}),
        ("txt2img", {"output_quality": 50, "output_format": "jpeg"}),
        ("txt2img", {"output_quality": 95}),
        ("controlnet", {"controls": [EDGES | {"guidance_end": 0.04}]}),
        ("controlnet", {"controls": [EDGES | {"guidance_start": 0.95}]}),
    ],
)
def test_a_field_that_acts_or_asks_for_nothing_is_accepted(
    catalogue: Catalogue, task: str, fields: dict[str, Any]
) -> None:
    assert problems(catalogue, task, **fields) == []
