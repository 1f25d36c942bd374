"""The field `guidance`: what is refused by name, and what is filled in."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import InvalidRequest
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.schema import Txt2ImgRequest

CATALOGUE = Catalogue.model_validate(
    {
        "root": "/",
        "default_model": "xl",
        "models": [
            ModelSpec(id="xl", family="sdxl", source="a/xl", guidance_layers=10),
            ModelSpec(id="three", family="sd3", source="a/three", guidance_layers=24),
            ModelSpec(id="flux", family="flux", source="a/flux"),
            ModelSpec(id="pixart", family="pixart", source="a/pixart"),
        ],
    }
)


def request(model: str, guidance: dict[str, Any], **fields: Any) -> Txt2ImgRequest:
    return Txt2ImgRequest(prompt="x", model=model, guidance=guidance, **fields)


@pytest.mark.parametrize(
    ("model", "guidance", "fields", "named"),
    [
        ("xl", {"kind": "slg"}, {}, "guidance.kind"),
        ("three", {"kind": "pag"}, {}, "guidance.kind"),
        ("flux", {"kind": "pag"}, {"true_cfg_scale": 2}, "guidance.kind"),
        ("pixart", {"kind": "apg"}, {}, "guidance"),
        ("xl", {"kind": "apg", "layers": [0]}, {}, "guidance.layers"),
        ("xl", {"kind": "apg", "zero_steps": 0}, {}, "guidance.zero_steps"),
        ("xl", {"kind": "pag", "eta": 0.5}, {}, "guidance.eta"),
        ("xl", {"kind": "pag", "layers": [0, 10]}, {}, "guidance.layers.1"),
        ("xl", {"kind": "pag", "layers": [-1]}, {}, "guidance.layers.0"),
        ("xl", {"kind": "pag", "layers": [3, 3]}, {}, "guidance.layers.1"),
        ("xl", {"kind": "pag", "start": 0.5, "stop": 0.5}, {}, "guidance.start"),
        ("xl", {"kind": "pag"}, {"num_inference_steps": 1}, "guidance.stop"),
        ("three", {"kind": "slg"}, {"num_inference_steps": 4}, "guidance.stop"),
        ("xl", {"kind": "apg", "stop": 0.1}, {"num_inference_steps": 4}, "guidance.stop"),
        ("xl", {"kind": "cfg_zero", "zero_steps": 4}, {"num_inference_steps": 4}, "guidance.zero_steps"),
        ("xl", {"kind": "cfg_zero"}, {"guidance_rescale": 0.5}, "guidance_rescale"),
        ("xl", {"kind": "apg"}, {"guidance_scale": 1}, "guidance"),
        ("flux", {"kind": "apg"}, {}, "guidance"),
    ],
)
def test_guidance_that_cannot_act_is_refused_by_the_name_of_its_field(
    model: str, guidance: dict[str, Any], fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(request(model, guidance, **fields), CATALOGUE)

    assert [problem.field for problem in refused.value.problems] == [named]


@pytest.mark.parametrize(
    ("model", "guidance", "stored"),
    [
        (
            "xl",
            {"kind": "apg", "eta": 1},
            {"kind": "apg", "momentum": -0.5, "eta": 1, "norm_threshold": 15, "start": 0, "stop": 1},
        ),
        ("xl", {"kind": "pag"}, {"kind": "pag", "scale": 3, "layers": list(range(10)), "start": 0, "stop": 1}),
        ("three", {"kind": "slg"}, {"kind": "slg", "scale": 2.8, "layers": [7, 8, 9], "start": 0.01, "stop": 0.2}),
        ("three", {"kind": "cfg_zero"}, {"kind": "cfg_zero", "zero_steps": 1, "start": 0, "stop": 1}),
    ],
)
def test_the_stored_guidance_has_every_option_of_its_kind(
    model: str, guidance: dict[str, Any], stored: dict[str, Any]
) -> None:
    asked = request(model, guidance)
    parameters = resolve(asked, check(asked, CATALOGUE), {})

    assert parameters.guidance is not None
    assert parameters.guidance.model_dump(mode="json", exclude_none=True) == stored


def test_a_small_transformer_is_left_its_first_and_last_layers() -> None:
    small = CATALOGUE.model("three").model_copy(update={"guidance_layers": 4})

    parameters = resolve(request("three", {"kind": "slg"}), small, {})

    assert parameters.guidance is not None
    assert parameters.guidance.layers == (2,)
