"""The web UI's two fields of a refiner become ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.dialects.a1111.requests import Translator
from app.dialects.a1111.schema import A1111Request
from app.dialects.a1111.sent_names import sent_name
from app.parsing.requests import read
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.requests.entries import Refiner

CATALOGUE = Catalogue(
    root=Path(),
    default_model="base",
    models=(
        ModelSpec(id="base", family="sdxl", source="x"),
        ModelSpec(id="refiner", family="sdxl", source="x", pipeline="StableDiffusionXLImg2ImgPipeline"),
    ),
)


def _refiner(**fields: Any) -> Refiner | None:
    # Without images, nothing is read.
    translator = Translator(CATALOGUE, {}, None)  # type: ignore[arg-type]
    reading, _ = translator.draft(read(A1111Request, json.dumps({"prompt": "a", **fields}).encode()))
    (request,) = reading.requests
    return request.refiner


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"refiner_checkpoint": "refiner.safetensors [abc]"}, Refiner(model="refiner", switch_at=0.8)),
        ({"refiner_checkpoint": "refiner", "refiner_switch_at": 0.6}, Refiner(model="refiner", switch_at=0.6)),
        ({"refiner_checkpoint": "None", "refiner_switch_at": 0}, None),
        ({"refiner_switch_at": 0.8}, None),
    ],
)
def test_a_refiner_of_the_web_ui_is_ours(fields: dict[str, Any], found: Refiner | None) -> None:
    assert _refiner(**fields) == found


def test_what_is_wrong_with_it_is_named_as_it_was_sent() -> None:
    request = A1111Request(prompt="a", refiner_checkpoint="gone")

    assert [sent_name(request, name) for name in ("refiner", "refiner.model", "refiner.switch_at")] == [
        "refiner_checkpoint", "refiner_checkpoint", "refiner_switch_at",
    ]  # fmt: skip
