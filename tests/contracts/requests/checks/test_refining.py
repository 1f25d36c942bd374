"""Which refiners a request may have: each refusal names the field, the reason and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import InvalidRequest
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.schema import REQUESTS

_NOISE = {"_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "num_train_timesteps": 1000}
_REFINER: dict[str, Any] = {"family": "sdxl", "source": "x", "pipeline": "StableDiffusionXLImg2ImgPipeline"}
CATALOGUE = Catalogue(
    root=Path(),
    default_model="base",
    models=(
        ModelSpec(id="base", family="sdxl", source="x", scheduler_config=_NOISE),
        ModelSpec(id="refiner", scheduler_config=_NOISE, **_REFINER),
        ModelSpec(id="small", max_pixels=512 * 512, **_REFINER),
        ModelSpec(id="zero", scheduler_config={**_NOISE, "rescale_betas_zero_snr": True}, **_REFINER),
        ModelSpec(id="still", scheduler_config={**_NOISE, "thresholding": True}, **_REFINER),
        ModelSpec(id="flux", family="flux", source="x"),
    ),
)


def _problems(task: Task = Task.TXT2IMG, refiner: dict[str, Any] | None = None, **fields: Any) -> list[str]:
    named = {"model": "refiner", **(refiner or {})}
    request = REQUESTS[task].model_validate({"prompt": "a", "refiner": named, **fields})
    try:
        check(request, CATALOGUE)
    except InvalidRequest as error:
        return [f"{problem.field} {problem.message}" for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("refiner", "fields", "problem"),
    [
        ({"model": "gone"}, {}, "refiner.model unknown model 'gone'"),
        ({"model": "base"}, {}, "refiner.model base is not a refiner for base"),
        ({"model": "flux"}, {}, "refiner.model flux is not a refiner for base"),
        ({"model": "small"}, {}, "refiner.model small refines at most 262144 pixels, got 1024 × 1024"),
        ({"model": "zero"}, {}, "refiner.model zero was trained on another noise schedule than base"),
        ({"model": "still"}, {}, "scheduler euler does not follow the checkpoint's thresholding = True (still"),
        ({"switch_at": 0.99}, {}, "refiner.switch_at leaves no step to the refiner: 0.01 of 30 steps"),
        ({"switch_at": 0.5, "steps": 1}, {}, "refiner.switch_at leaves no step to the refiner: 0.5 of 1 steps"),
        ({"switch_at": 0.01}, {}, "refiner.switch_at leaves no step to the request's model: of 30 steps"),
        ({"steps": 51}, {"scheduler": "lcm"}, "refiner.steps must be at most 50 with scheduler lcm, got 51"),
        ({}, {"speed": "fast"}, "speed fast cannot be used together with refiner"),
        ({}, {"guidance": {"kind": "apg"}}, "guidance cannot be used together with refiner"),
        ({}, {"model": "flux"}, "refiner is not supported by flux (flux) in txt2img; remove it"),
        (
            {"negative_aesthetic_score": 2.0},
            {"guidance_scale": 1},
            "refiner.negative_aesthetic_score has no effect while guidance_scale is 1",
        ),
    ],
)
def test_a_refiner_that_cannot_act_is_refused(
    refiner: dict[str, Any], fields: dict[str, Any], problem: str
) -> None:
    assert any(found.startswith(problem) for found in _problems(refiner=refiner, **fields)), _problems(
        refiner=refiner, **fields
    )


def test_a_start_image_must_leave_steps_to_the_first_model() -> None:
    start = {"image": "upload:x", "width": 1024, "height": 1024}

    assert _problems(Task.IMG2IMG, {"switch_at": 0.8}, strength=0.3, **start) == []
    (problem,) = _problems(Task.IMG2IMG, {"switch_at": 0.8}, strength=0.2, **start)

    assert "raise it, or strength or num_inference_steps" in problem


def test_adapters_are_not_made_for_a_refiner_alone() -> None:
    request = REQUESTS[Task.IMG2IMG].model_validate(
        {"prompt": "a", "model": "refiner", "image": "upload:x", "clip_skip": 1, "prompt_2": "b"}
    )
    with pytest.raises(InvalidRequest) as refused:
        check(request, CATALOGUE)

    assert {problem.field for problem in refused.value.problems} == {"clip_skip", "prompt_2"}


def test_a_job_has_a_stage_for_each_model_and_is_predicted_as_both() -> None:
    request = REQUESTS[Task.TXT2IMG].model_validate(
        {"prompt": "a", "clip_skip": 1, "refiner": {"model": "refiner", "steps": 60}, "num_inference_steps": 30}
    )
    job = resolve(request, check(request, CATALOGUE), {})

    first, second = job.stages

    assert first is job
    assert (second.model, second.mode, second.num_inference_steps, second.clip_skip) == (
        "refiner", "img2img", 60, None,
    )  # fmt: skip
    assert job.needs == ["base", "refiner"]
    assert job.work["image_steps"] == 24 + 12
    assert job.pace_key.startswith("base+refiner txt2img")
    alone = job.model_copy(update={"refiner": None})
    assert (job.record_version, alone.record_version) == (3, 1), "older workers would ignore the refiner"
