"""Types and ranges of request fields, as strict JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.catalogue.families import Task
from contracts.requests.schema import REQUESTS

IMAGE = "AAAA"
BODIES: dict[Task, dict[str, Any]] = {
    Task.TXT2IMG: {"prompt": "x"},
    Task.IMG2IMG: {"prompt": "x", "image": IMAGE},
    Task.INPAINT: {"prompt": "x", "image": IMAGE, "mask_image": IMAGE},
    Task.EDIT: {"prompt": "x", "references": [IMAGE]},
    Task.CONTROLNET: {"prompt": "x", "controls": [{"controlnet": "c", "image": IMAGE}]},
}


@pytest.mark.parametrize("task", list(Task))
def test_the_smallest_body_of_each_task_is_accepted(task: Task) -> None:
    request = REQUESTS[task].model_validate_json(json.dumps(BODIES[task]), strict=True)
    assert request.task == task  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", list(Task))
def test_a_field_of_another_task_is_refused(task: Task) -> None:
    for field in ("image", "mask_image", "controls", "references", "strength", "steps"):
        if field in REQUESTS[task].model_fields:
            continue
        with pytest.raises(ValidationError):
            REQUESTS[task].model_validate_json(json.dumps(BODIES[task] | {field: IMAGE}), strict=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ""}, {"prompt": "x" * 10_001}, {"prompt": 3}, {"width": "64"}, {"width": 63}, {"width": 2056},
        {"height": 64.5}, {"num_images": 0}, {"num_images": 9}, {"num_images": True}, {"num_inference_steps": 0},
        {"num_inference_steps": 201}, {"guidance_scale": -1}, {"guidance_scale": 31}, {"seed": -2},
        {"seed": 2**32 + 7}, {"loras": [{"name": "a"}] * 9}, {"loras": [{"name": "a", "scale": 5}]},
        {"output_format": "gif"}, {"output_quality": 0}, {"deadline_seconds": 0}, {"priority": "urgent"},
        {"metadata": {str(number): "x" for number in range(17)}}, {"metadata": {"a": "x" * 2048}},
        {"metadata": {"a": 1}}, {"original_size": [64]}, {"steps": 3},
    ],
    ids=str,
)  # fmt: skip
def test_values_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        REQUESTS[Task.TXT2IMG].model_validate_json(json.dumps(BODIES[Task.TXT2IMG] | fields), strict=True)


@pytest.mark.parametrize("strength", [0, -0.1, 1.01])
def test_strength_is_above_zero_and_at_most_one(strength: float) -> None:
    with pytest.raises(ValidationError):
        REQUESTS[Task.IMG2IMG].model_validate_json(json.dumps(BODIES[Task.IMG2IMG] | {"strength": strength}))
