"""Which cascades a request may have: each refusal names the field, the reason and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import InvalidRequest
from contracts.requests.checks.second_models import second_models, with_second_model
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.schema import REQUESTS

_NOISE = {"_class_name": "DDPMScheduler", "variance_type": "learned_range", "thresholding": True}
_STAGE_II: dict[str, Any] = {"family": "deepfloyd", "source": "x", "pipeline": "IFSuperResolutionPipeline"}
_START: dict[str, Any] = {"image": "upload:x", "width": 64, "height": 64}
_MASKED = {**_START, "mask_image": "upload:y"}
CATALOGUE = Catalogue(
    root=Path(),
    default_model="one",
    models=(
        ModelSpec(id="one", family="deepfloyd", source="x", scheduler_config=_NOISE),
        ModelSpec(id="two", scheduler_config={**_NOISE, "sample_max_value": 1.0}, aliases=("ii",), **_STAGE_II),
        ModelSpec(
            id="clips", scheduler_config={**_NOISE, "thresholding": False, "clip_sample": True}, **_STAGE_II
        ),
        ModelSpec(id="flux", family="flux", source="x"),
    ),
)


def _problems(task: Task = Task.TXT2IMG, cascade: dict[str, Any] | None = None, **fields: Any) -> list[str]:
    named = {} if cascade is None else {"cascade": {"model": "two", **cascade}}
    request = REQUESTS[task].model_validate({"prompt": "a", **named, **fields})
    try:
        check(request, CATALOGUE)
    except InvalidRequest as error:
        return [f"{problem.field} {problem.message}" for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("cascade", "fields", "problem"),
    [
        ({"model": "gone"}, {}, "cascade.model unknown model 'gone'"),
        ({"model": "one"}, {}, "cascade.model one is not a cascade for one"),
        ({}, {"width": 256, "height": 256}, None),
        (
            {},
            {"width": 264, "height": 256},
            "cascade.model two makes at most 1048576 pixels, and 1081344 from 264 × 256",
        ),
        ({"strength": 0.5}, {}, "cascade.strength has no effect without an image to start from; remove it"),
        (
            {"dynamic_thresholding": {"ratio": 0.5}},
            {},
            "cascade.dynamic_thresholding.ratio has no effect while the max_value of two is 1",
        ),
        ({"dynamic_thresholding": {"ratio": 0.5, "max_value": 2}}, {}, None),
        (
            {"model": "clips"},
            {"scheduler": "ddpm_dpmpp_2m"},
            "scheduler ddpm_dpmpp_2m does not follow the checkpoint's clip_sample = True (clips, the cascade)",
        ),
        ({}, {"speed": "fast"}, "speed fast cannot be used together with cascade"),
        ({}, {"model": "flux"}, "cascade is not supported by flux (flux) in txt2img; remove it"),
        (None, {"model": "two"}, "model two runs only as the cascade of another model; "
         "name it there in jobs of one"),
        ({}, {"scheduler": "euler"}, "scheduler euler does not follow the checkpoint's variance_type"),
        ({}, {"dynamic_thresholding": {"ratio": 0.5, "max_value": 1}}, "dynamic_thresholding.ratio has no effect "
         "while max_value is 1"),
        ({}, {"guidance_scale": 1, "negative_prompt": "b"}, None),
        ({"guidance_scale": 1}, {"guidance_scale": 1, "negative_prompt": "b"}, "negative_prompt has no effect"),
    ],
)  # fmt: skip
def test_a_cascade_that_cannot_act_is_refused(
    cascade: dict[str, Any] | None, fields: dict[str, Any], problem: str | None
) -> None:
    found = _problems(cascade=cascade, **fields)
    assert found == [] if problem is None else any(one.startswith(problem) for one in found), found


@pytest.mark.parametrize(("task", "fields"), [(Task.IMG2IMG, _START), (Task.INPAINT, _MASKED)])
def test_a_strength_without_steps_is_refused(task: Task, fields: dict[str, Any]) -> None:
    (weak,) = _problems(task, {"steps": 1, "strength": 0.5}, **fields)

    assert weak.startswith("cascade.strength 0.5 of 1 steps leaves none to run; raise it, or cascade.steps")
    assert _problems(task, {"steps": 1, "strength": 1}, **fields) == []


def test_the_smaller_image_of_an_inpaint_has_no_noise_unless_some_is_asked_for() -> None:
    images = {name: StoredImage(name, 64, 64) for name in ("image", "mask_image")}

    def level(task: Task, **cascade: Any) -> int | None:
        fields = {} if task is Task.TXT2IMG else _START if task is Task.IMG2IMG else _MASKED
        request = REQUESTS[task].model_validate({"prompt": "a", "cascade": {"model": "two", **cascade}, **fields})
        given = {name: image for name, image in images.items() if name in fields}
        job = resolve(request, check(request, CATALOGUE), given)
        assert job.cascade is not None
        return job.cascade.noise_level

    assert [level(task) for task in (Task.TXT2IMG, Task.IMG2IMG, Task.INPAINT)] == [250, 250, 0]
    assert [level(Task.INPAINT, noise_level=7), level(Task.IMG2IMG, noise_level=0)] == [7, 0]


def test_a_job_has_a_stage_for_each_model_and_is_predicted_as_both() -> None:
    request = REQUESTS[Task.TXT2IMG].model_validate(
        {"prompt": "a", "num_inference_steps": 30, "cascade": {"model": "ii", "steps": 20}}
    )
    job = with_second_model(resolve(request, check(request, CATALOGUE), {}), CATALOGUE)

    first, second = job.stages

    assert first is job
    assert (second.model, second.width, second.num_inference_steps, second.guidance_scale) == ("two", 256, 20, 4.0)
    assert (job.needs, job.pixels, job.expected_steps) == (["one", "two"], 256 * 256, 50)
    assert job.pace_key.startswith("one+two txt2img 64x64 cascade 256x256 20")
    assert job.record_version == 3, "older workers would ignore the second stage"
    models = {row.id: [one.id for one in second_models("cascade", row, CATALOGUE)] for row in CATALOGUE.models}
    assert models == {"one": ["two", "clips"], "two": [], "clips": [], "flux": []}
    assert CATALOGUE.model("two").tasks == []
