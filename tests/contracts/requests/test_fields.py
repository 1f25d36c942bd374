"""A field declared in `fields.py` is part of requests, their schema and stored parameters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contracts.catalogue.families import FAMILIES, MODE_FIELDS, Mode, Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.requests.defaults import resolve
from contracts.requests.fields import ImageFields, OptionalImages
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import REQUESTS

IMAGES = {
    path: StoredImage(f"inputs/{path}.png", 64, 64)
    for path in ("image", "mask_image", "controls.0.image", "references.0")
}
REQUIRED = {
    "prompt": "x",
    "image": "AAAA",
    "mask_image": "AAAA",
    "controls": [{"controlnet": "c", "image": "AAAA"}],
    "references": ["AAAA"],
}
#: Parameters that differ from the request's value: images become storage keys; adapters, guidance and
#: second stages have their own tests.
TRANSLATED = {
    "model", "image", "mask_image", "loras", "ip_adapters", "textual_inversions", "guidance", "refiner", "hires",
    "check_step", "dynamic_thresholding", "cascade",
}  # fmt: skip
#: Parameters as an earlier version stored them with a queued job.
STORED_BEFORE = """{"task": "controlnet", "mode": "controlnet_inpaint", "model": "shapes-sdxl",
"prompt": "a red circle", "prompt_2": null, "prompt_3": null, "negative_prompt": "blue",
"width": 64, "height": 64, "num_images": 2,
"num_inference_steps": 12, "guidance_scale": null, "true_cfg_scale": null, "guidance_rescale": 0.0, "clip_skip": 1,
"max_sequence_length": null, "original_size": [64, 64], "crops_coords_top_left": [0, 0], "target_size": null,
"seed": 7, "batchable": false, "scheduler": "euler", "speed": "exact",
"loras": [{"name": "mine", "scale": 0.5, "key": "inputs/ab.safetensors", "sha256": "ab", "values": 7}],
"image": "inputs/a.png", "strength": 0.6, "mask_image": "inputs/b.png", "mask_blur": 4, "padding_mask_crop": null,
"controls": [{"controlnet": "edges", "image": "inputs/c.png", "preprocess": null, "conditioning_scale": 1.0,
"guidance_start": 0.0, "guidance_end": 1.0}], "output_format": "png", "output_quality": 95, "previews": 0}"""


def _value(schema: dict[str, Any]) -> Any:
    """Return a value that a field's JSON Schema allows and that is not the default."""
    schema = next((branch for branch in schema.get("anyOf", ()) if branch.get("type") != "null"), schema)
    match schema:
        case {"enum": values}:
            return values[-1]
        case {"maximum": maximum}:
            return maximum
        case {"type": "boolean"}:
            return True
        case {"prefixItems": items}:
            return tuple(_value(item) for item in items)
    return "other"


def _where_used(field: str) -> tuple[ModelSpec, Mode]:
    """Return a model and a mode that use a field."""
    return next(
        (ModelSpec(id="any", family=family.id, source="any", pipeline=row.pipeline), mode)
        for family in FAMILIES.values()
        for row in (family, *family.other_checkpoints.values())
        for mode, fields in row.modes.items()
        if field in fields or field not in MODE_FIELDS
    )


@pytest.mark.parametrize(
    "field", sorted((ImageFields.model_fields | OptionalImages.model_fields).keys() - TRANSLATED)
)
def test_a_declared_field_reaches_the_stored_parameters_by_its_name_alone(field: str) -> None:
    model, mode = _where_used(field)
    kind = REQUESTS[Task(mode.value.split("_")[0])]
    needed = {name for name in REQUIRED if name in kind.model_fields}
    if kind is REQUESTS[Task.CONTROLNET] and "inpaint" not in mode:
        needed -= {"mask_image"}
    if mode is Mode.EDIT:
        needed -= {"image", "mask_image"}
    value = _value(kind.model_json_schema()["properties"][field])
    body = {name: REQUIRED[name] for name in needed} | {field: value}

    request = kind.model_validate_json(json.dumps(body), strict=True)
    parameters = resolve(
        request, model, {path: IMAGES[path] for path in IMAGES if path.partition(".")[0] in needed}
    )

    assert getattr(parameters, field) == value


def test_ip_adapters_are_stored_with_the_keys_of_their_images() -> None:
    adapter = {"name": "faces", "images": ["AAAA", "upload:x"], "scale": 0.5, "mask": "AAAA"}
    request = REQUESTS[Task.TXT2IMG].model_validate_json(
        json.dumps({"prompt": "x", "ip_adapters": [adapter]}), strict=True
    )
    paths = ("ip_adapters.0.images.0", "ip_adapters.0.images.1", "ip_adapters.0.mask")
    images = {path: StoredImage(f"inputs/{number}.png", 300, 200) for number, path in enumerate(paths)}
    parameters = resolve(request, ModelSpec(id="any", family="sdxl", source="any"), images)
    (stored,) = parameters.ip_adapters
    assert (stored.name, stored.images, stored.scale, stored.mask) == (
        "faces", ("inputs/0.png", "inputs/1.png"), 0.5, "inputs/2.png",
    )  # fmt: skip
    assert parameters.inputs == ["inputs/0.png", "inputs/1.png", "inputs/2.png"]
    assert "ip_adapter:faces" in parameters.needs
    # A reference keeps its size: only the mask is brought to the output's.
    assert [use.fit for use in parameters.input_images] == [None, None, "stretch"]


def test_loras_and_controls_are_stored_with_every_field_that_a_request_may_set() -> None:
    lora, control = {"name": "a", "scale": 0.5}, {"controlnet": "c", "image": "AAAA", "mode": 1,
               "preprocess": "canny",
               "preprocess_options": {"low_threshold": 40, "high_threshold": 90, "resolution": 128},
               "conditioning_scale": 0.5, "guidance_start": 0.25, "guidance_end": 0.75}  # fmt: skip
    body = {"prompt": "x", "loras": [lora], "controls": [control]}

    request = REQUESTS[Task.CONTROLNET].model_validate_json(json.dumps(body), strict=True)
    made = {"controls.0.map": StoredImage("inputs/map.png", 128, 128)}
    parameters = resolve(request, ModelSpec(id="any", family="sdxl", source="any"), {**IMAGES, **made})

    assert parameters.loras[0].model_dump(exclude_none=True) == lora
    assert parameters.controls[0].model_dump() == control | {
        "image": "inputs/map.png",
        "source": "inputs/controls.0.image.png",
    }


@pytest.mark.parametrize("task", list(Task))
def test_every_field_is_described_in_the_schema(task: Task) -> None:
    schema = REQUESTS[task].model_json_schema()
    parts = [schema, *(part for part in schema["$defs"].values() if "properties" in part)]

    bare = [name for part in parts for name, field in part["properties"].items() if not field.get("description")]

    assert bare == []


def test_parameters_that_an_earlier_version_stored_are_read() -> None:
    parameters = JobParameters.model_validate_json(STORED_BEFORE)

    added = {"prompt_syntax": "plain", "long_prompt": None}
    assert json.loads(parameters.model_dump_json()) == json.loads(STORED_BEFORE) | added
