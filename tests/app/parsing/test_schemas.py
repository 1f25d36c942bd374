"""A model's schema accepts what the service accepts, and refuses what it refuses by field."""

from __future__ import annotations

import pytest

from app.parsing.schemas import allowed_at, schemas_for
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import MODE_FIELDS, Mode, Task
from contracts.catalogue.reader import read_catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.requests.schema import REQUESTS, ControlNetRequest, Txt2ImgRequest
from contracts.settings import BUILT_IN_CATALOGUE


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return read_catalogue(BUILT_IN_CATALOGUE)


def test_what_a_field_allows_is_described() -> None:
    assert allowed_at(Txt2ImgRequest, ["num_inference_steps"]) == "1–200"
    assert allowed_at(Txt2ImgRequest, ["response_format"]) == ["url", "b64_json"]
    assert allowed_at(ControlNetRequest, ["controls", 3, "conditioning_scale"]) == "0–2"
    assert allowed_at(Txt2ImgRequest, ["model"]) is None


def test_an_unknown_path_lists_the_known_fields() -> None:
    assert allowed_at(Txt2ImgRequest, ["loras", 0, "weight"]) == ["name", "scale"]
    assert "prompt" in str(allowed_at(Txt2ImgRequest, ["promt"]))


@pytest.mark.parametrize("id", ["shapes-sdxl", "shapes-sd3", "shapes-flux", "shapes-sd15", "shapes-kontext"])
def test_a_schema_has_exactly_the_fields_that_the_model_supports(catalogue: Catalogue, id: str) -> None:
    model = catalogue.model(id)

    for task, schema in schemas_for(model, catalogue).items():
        modes = [mode for mode in model.family_spec.modes if mode.value.split("_")[0] == task]
        granted = frozenset().union(*(model.family_spec.modes[mode] for mode in modes))
        rows = {"ip_adapters": catalogue.ip_adapters, "textual_inversions": catalogue.textual_inversions}
        granted -= {field for field, own in rows.items() if not any(row.suits(model) for row in own)}
        granted -= {"refiner"}  # the catalogue has none
        shown = set(schema["properties"])
        assert shown & MODE_FIELDS == granted & REQUESTS[task].model_fields.keys()
        assert shown >= {
            "prompt",
            "width",
            "num_inference_steps",
            "guidance_scale",
            "model",
            "seed",
            "output_format",
        }
        assert shown <= REQUESTS[task].model_fields.keys()
        assert set(schema["required"]) <= shown


def test_a_schema_is_narrowed_to_the_model(catalogue: Catalogue) -> None:
    flux = schemas_for(catalogue.model("shapes-flux"), catalogue)

    schema = flux[Task.TXT2IMG]
    properties = schema["properties"]
    assert properties["model"]["anyOf"][0]["enum"] == ["shapes-flux"]
    assert properties["scheduler"]["anyOf"][0]["enum"] == catalogue.model("shapes-flux").schedulers
    assert properties["width"]["anyOf"][0]["multipleOf"] == 16
    assert properties["num_inference_steps"]["default"] == 12
    assert "65536 pixels" in schema["description"]
    assert "clip_skip" not in properties
    names = flux[Task.CONTROLNET]["$defs"]["Control"]["properties"]["controlnet"]["enum"]
    assert names == [row.id for row in catalogue.controlnets if row.family == "flux"]


def test_the_size_has_no_default_where_an_image_gives_it(catalogue: Catalogue) -> None:
    schemas = schemas_for(catalogue.model("shapes-sdxl"), catalogue)

    assert schemas[Task.TXT2IMG]["properties"]["width"]["default"] == 64
    assert schemas[Task.IMG2IMG]["properties"]["width"]["default"] is None


def test_fields_that_a_checkpoint_ignores_are_not_shown(catalogue: Catalogue) -> None:
    schnell = ModelSpec(id="schnell", family="flux", source="a/b", refuses=("guidance_scale",))

    schema = schemas_for(schnell, catalogue)[Task.TXT2IMG]

    assert "guidance_scale" not in schema["properties"]


def test_one_models_schema_does_not_change_another(catalogue: Catalogue) -> None:
    before = schemas_for(catalogue.model("shapes-sd3"), catalogue)
    schemas_for(catalogue.model("shapes-flux"), catalogue)

    assert schemas_for(catalogue.model("shapes-sd3"), catalogue) == before
    assert allowed_at(Txt2ImgRequest, ["scheduler"]) is None


def test_a_mode_belongs_to_the_task_that_its_name_begins_with() -> None:
    assert {mode.value.split("_")[0] for mode in Mode} == {task.value for task in Task}
