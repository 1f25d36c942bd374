"""Which second passes a request may have: each refusal names the field, the reason and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.catalogue.catalogue import Catalogue, ModelSpec, UpscalerSpec
from contracts.catalogue.families import Task
from contracts.errors import InvalidRequest
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.schema import REQUESTS

CATALOGUE = Catalogue(
    root=Path(),
    default_model="sd15",
    models=(
        ModelSpec(id="sd15", family="sd15", source="x"),
        ModelSpec(id="chroma", family="chroma", source="x"),
        ModelSpec(id="pixart", family="pixart", source="x"),
        ModelSpec(id="drawn", family="sd15", source="x", only_tasks=(Task.TXT2IMG,)),
        ModelSpec(id="xl", family="sdxl", source="x"),
        ModelSpec(id="refiner", family="sdxl", source="x", pipeline="StableDiffusionXLImg2ImgPipeline"),
    ),
    upscalers=(UpscalerSpec(id="four", source="x.safetensors", scale=4),),
)


def _problems(hires: dict[str, Any], task: Task = Task.TXT2IMG, **fields: Any) -> list[str]:
    request = REQUESTS[task].model_validate({"prompt": "a", "hires": hires, **fields})
    with pytest.raises(InvalidRequest) as refused:
        check(request, CATALOGUE)
    return [f"{problem.field} {problem.message}" for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("hires", "fields", "problem"),
    [
        ({"upscaler": "gone"}, {}, "hires.upscaler unknown upscaler 'gone'"),
        ({"upscaler": "latent"}, {"model": "chroma"}, "hires.upscaler latent is not possible with chroma"),
        ({}, {"model": "pixart"}, "hires is not supported by pixart (pixart) in txt2img; remove it"),
        ({}, {"model": "drawn"}, "hires needs a model that can run img2img, which drawn cannot"),
        ({}, {"model": "xl", "refiner": {"model": "refiner"}}, "hires cannot be used together with refiner"),
        ({}, {"speed": "fast"}, "speed fast cannot be used together with hires"),
        ({}, {"guidance_rescale": 0.5}, "guidance_rescale has no effect in the second pass of hires with sd15"),
        ({"scale": 1.001}, {}, "hires.scale leaves 512 × 512 as it is"),
        ({"scale": 4}, {"width": 1024}, "hires.scale is too large: 1024 × 512 would become 4096 × 2048"),
        ({"strength": 0.1, "steps": 9}, {}, "hires.strength 0.1 of 9 steps leaves none to run"),
        ({"steps": 51}, {"scheduler": "lcm"}, "hires.steps must be at most 50 with scheduler lcm, got 51"),
    ],
)  # fmt: skip
def test_a_second_pass_that_cannot_act_is_refused(
    hires: dict[str, Any], fields: dict[str, Any], problem: str
) -> None:
    assert any(found.startswith(problem) for found in _problems(hires, **fields)), _problems(hires, **fields)


def test_only_txt2img_has_a_second_pass() -> None:
    found = _problems({}, Task.IMG2IMG, image="upload:x")
    assert [text for text in found if text.startswith("hires is not supported by sd15")]


def test_a_second_pass_is_a_stage_of_its_size_whose_work_is_counted() -> None:
    hires = {"scale": 1.51, "upscaler": "four", "steps": 30, "strength": 0.4}
    request = REQUESTS[Task.TXT2IMG].model_validate(
        {"prompt": "a", "hires": hires, "num_inference_steps": 10, "num_images": 2}
    )
    job = resolve(request, check(request, CATALOGUE), {})

    first, second = job.stages
    assert first is job
    assert (second.mode, second.width, second.height, second.num_inference_steps, second.strength) == (
        "img2img", 776, 776, 30, 0.4,
    )  # fmt: skip
    assert job.needs == ["sd15", "upscaler:four"]
    assert (job.expected_steps, job.pixels) == (22, 2 * 776 * 776)
    assert job.work["megapixel_steps"] == pytest.approx(2 * (10 * 512 * 512 + 12 * 776 * 776) / 1e6)
    assert job.record_version == 3


def test_an_upscaler_is_not_called_as_what_needs_no_network() -> None:
    with pytest.raises(ValueError, match="must differ from lanczos, latent"):
        UpscalerSpec(id="latent", source="x.safetensors", scale=2)
