"""The web UI's second pass in high resolution becomes ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.dialects.a1111.lists import list_upscalers
from app.dialects.a1111.requests import Translator, read_request
from app.dialects.a1111.schema import A1111Request, A1111Txt2ImgRequest
from app.dialects.a1111.sent_names import sent_name
from contracts.catalogue.catalogue import Catalogue, ModelSpec, UpscalerSpec
from contracts.requests.entries import Hires

CATALOGUE = Catalogue(
    root=Path(),
    default_model="base",
    models=(ModelSpec(id="base", family="sd15", source="x"),),
    upscalers=(UpscalerSpec(id="four", source="x.safetensors", scale=4),),
)


def _read(**fields: Any) -> Any:
    return read_request(A1111Txt2ImgRequest, json.dumps({"prompt": "a", **fields}).encode())


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"enable_hr": True}, Hires(scale=2, upscaler="latent", strength=0.75)),
        (
            {"enable_hr": 1, "hr_scale": 1.5, "hr_upscaler": "four", "hr_second_pass_steps": 9,
             "denoising_strength": 0.3},
            Hires(scale=1.5, upscaler="four", strength=0.3, steps=9),
        ),
        ({"enable_hr": True, "hr_upscaler": "None", "hr_sampler_name": "Use same sampler"},
         Hires(upscaler="lanczos", strength=0.75)),
        ({"hr_scale": 3, "hr_resize_x": 512}, None),
    ],
)  # fmt: skip
def test_a_second_pass_of_the_web_ui_is_ours(fields: dict[str, Any], found: Hires | None) -> None:
    # Without images, nothing is read.
    reading, _ = Translator(CATALOGUE, {}, None).draft(_read(**fields))  # type: ignore[arg-type]
    assert reading.requests[0].hires == found


@pytest.mark.parametrize(
    "field",
    [{"hr_resize_x": 512}, {"firstphase_width": 64}, {"hr_prompt": "b"}, {"hr_sampler_name": "DDIM"}],
)
def test_what_a_second_pass_cannot_change_is_refused_by_its_own_name(field: dict[str, Any]) -> None:
    problems = _read(enable_hr=True, **field).problems
    assert [problem.field for problem in problems] == [*field]


def test_what_is_wrong_with_it_is_named_as_it_was_sent() -> None:
    names = ("hires", "hires.scale", "hires.upscaler", "hires.strength", "hires.steps")
    assert [sent_name(A1111Request(prompt="a"), name) for name in names] == [
        "enable_hr", "hr_scale", "hr_upscaler", "denoising_strength", "hr_second_pass_steps",
    ]  # fmt: skip


def test_the_upscalers_are_listed_beside_what_needs_no_network() -> None:
    assert [(row.name, row.scale) for row in list_upscalers(CATALOGUE)] == [
        ("None", 4.0), ("Lanczos", 4.0), ("four", 4.0),
    ]  # fmt: skip
