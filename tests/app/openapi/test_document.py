"""The OpenAPI document is valid and complete: every body, response and error is in it, with a valid example."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.main import create_app
from app.openapi.document import DocumentedApi
from app.settings import ApiSettings
from contracts.catalogue.reader import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE

Json = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Json:
    """The document as it is served; it depends on no service, and takes a while to make."""
    found: Json = json.loads(json.dumps(create_app(ApiSettings()).openapi()))
    return found


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def test_every_reference_resolves(document: Json) -> None:
    found = set(references(document))

    assert "#/components/schemas/InpaintRequest" in found
    assert {name.removeprefix("#/components/schemas/") for name in found} <= document["components"][
        "schemas"
    ].keys()


def test_bodies_and_problems_are_documented(document: Json) -> None:
    paths = document["paths"]

    submit = paths["/v1/controlnet"]["post"]
    body = submit["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ControlNetRequest"}
    assert {"202", "400", "413", "415", "422", "500", "503"} <= submit["responses"].keys()
    assert "application/problem+json" in submit["responses"]["422"]["content"]
    assert "multipart/form-data" in paths["/v1/uploads"]["post"]["requestBody"]["content"]
    assert "image/webp" in paths["/v1/jobs/{id}/images/{n}"]["get"]["responses"]["200"]["content"]


def test_operation_ids_are_unique(document: Json) -> None:
    paths = document["paths"]

    names = [operation["operationId"] for path in paths.values() for operation in path.values()]

    assert len(names) == len(set(names))


def test_the_error_schema_of_the_framework_is_not_documented(document: Json) -> None:
    assert "HTTPValidationError" not in json.dumps(document)


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def bodies(document: Json) -> Iterator[tuple[str, Json]]:
    """Yield every JSON body and event stream: where it is, and its media type object."""
    for name, operation in operations(document):
        parts = {"request": operation.get("requestBody", {}), **operation["responses"]}
        for status, part in parts.items():
            for media_type, content in part.get("content", {}).items():
                if "json" in media_type or media_type == "text/event-stream":
                    yield f"{name} {status} {media_type}", content


def examples(content: Json) -> list[Any]:
    if "example" in content:
        return [content["example"]]
    return [example["value"] for example in content.get("examples", {}).values()]


def test_the_document_is_valid(document: Json) -> None:
    assert [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_body_has_an_example_that_matches_its_schema(document: Json) -> None:
    wrong = []
    for location, content in bodies(document):
        schema = {**content["schema"], "components": document["components"]}
        found = examples(content)
        if not found and content["schema"] != {}:
            wrong.append(f"{location}: has no example; add one to app/examples.json")
        wrong += [f"{location}: {error.message}" for example in found for error in _errors(schema, example)]

    assert wrong == []


def _errors(schema: Json, example: Any) -> Iterator[Any]:
    validator: Any = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    yield from validator.iter_errors(example)


def test_ids_of_the_catalogue_are_examples_and_no_enumeration(document: Json) -> None:
    schemas = document["components"]["schemas"]
    for name in ("Txt2ImgRequest", "EditRequest"):
        model, scheduler = (schemas[name]["properties"][field] for field in ("model", "scheduler"))
        assert model["examples"] == [row.id for row in read_catalogue(BUILT_IN_CATALOGUE).models]
        assert {"euler", "flow_euler"} <= set(scheduler["examples"])
    assert "shapes-flux-silhouette" in schemas["Control"]["properties"]["controlnet"]["examples"]
    listed = [value for values in found(document, "enum") for value in values]
    assert not [value for value in listed if str(value).startswith("shapes-") or value == "flow_euler"]


def found(part: Any, key: str) -> Iterator[Any]:
    """Yield all values under a key, at any depth."""
    if isinstance(part, dict):
        yield from [value for name, value in part.items() if name == key]
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from found(inner, key)


def objects(part: Any, where: str) -> Iterator[tuple[str, Json]]:
    """Yield every schema with properties, at any depth, and where it is."""
    if isinstance(part, dict):
        if isinstance(part.get("properties"), dict):
            yield where, part
        for name, inner in part.items():
            if name not in ("example", "examples"):
                yield from objects(inner, f"{where}.{name}")
    elif isinstance(part, list):
        for index, inner in enumerate(part):
            yield from objects(inner, f"{where}.{index}")


def test_every_field_of_every_body_and_answer_is_described(document: Json) -> None:
    undescribed = [
        f"{where}.{field}"
        for where, schema in objects(document, "document")
        for field, part in schema["properties"].items()
        if len(part.get("description", "").split()) < 2
    ]

    assert undescribed == []


def test_every_schema_parameter_operation_and_answer_is_described(document: Json) -> None:
    schemas = document["components"]["schemas"]
    undescribed = [name for name, schema in schemas.items() if not schema.get("description")]
    for name, operation in operations(document):
        undescribed += [name for key in ("summary", "description") if not operation.get(key)]
        for parameter in operation.get("parameters", ()):
            undescribed += [] if parameter.get("description") else [f"{name} {parameter['name']}"]
        for status, answer in operation["responses"].items():
            is_described = answer.get("description") not in (None, "", "Successful Response")
            undescribed += [] if is_described else [f"{name} {status}"]
            headers = answer.get("headers", {}).items()
            undescribed += [f"{name} {status} {header}" for header, part in headers if not part.get("description")]

    assert undescribed == []


def requests_of(document: Json) -> Iterator[tuple[str, Json]]:
    """Yield the schemas of request bodies, and of the objects inside them."""
    schemas = document["components"]["schemas"]
    for name in [name for name in schemas if name.endswith("Request")] + ["Control", "Lora", "Webhook"]:
        yield name, schemas[name]


def test_optional_fields_of_requests_say_what_happens_without_them(document: Json) -> None:
    silent = [
        f"{name}.{field}"
        for name, schema in requests_of(document)
        for field, part in schema["properties"].items()
        if field not in schema.get("required", ()) and "Default" not in part["description"]
    ]

    assert silent == []


def test_bounds_of_request_fields_are_in_their_descriptions(document: Json) -> None:
    steps, strength = (
        document["components"]["schemas"]["Img2ImgRequest"]["properties"][name]["description"]
        for name in ("num_inference_steps", "strength")
    )

    assert "Range: 1–200." in steps
    assert "Range: above 0, up to 1." in strength


def test_fields_that_only_some_families_have_name_them(document: Json) -> None:
    fields = document["components"]["schemas"]["Txt2ImgRequest"]["properties"]

    assert "Only for models of the families sdxl, sd3 and sd15." in fields["clip_skip"]["description"]
    assert "Only for models of the families flux and qwen-image." in fields["true_cfg_scale"]["description"]
    assert "Not for models of the family dit." in fields["negative_prompt"]["description"]
    assert "Only for models of the family dit." in fields["class_label"]["description"]


def test_requests_have_no_defaults_that_make_generated_types_require_a_field(document: Json) -> None:
    for name, schema in requests_of(document):
        assert [field for field, part in schema["properties"].items() if "default" in part] == [], name
        assert len(schema.get("required", ())) <= 3, name


def test_answers_require_what_they_always_have_and_nothing_else(document: Json) -> None:
    schemas = document["components"]["schemas"]

    assert {"started_at", "receipt", "queue"} <= set(schemas["JobView"]["required"])
    assert {"loras", "seeds", "memory"} <= set(schemas["Receipt"]["required"])
    assert {"preparing", "webhook"}.isdisjoint(schemas["JobView"]["required"])
    assert "b64_json" not in schemas["ImageView"]["required"]


def test_tags_are_described_and_cover_every_operation(document: Json) -> None:
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}

    assert next(iter(tags)) == "jobs"
    assert all(tags.values())
    used = {tag for _, operation in operations(document) for tag in operation["tags"]}
    assert used | {"webhooks"} == set(tags)


def test_operation_ids_are_names_for_methods(document: Json) -> None:
    ids = {name: operation["operationId"] for name, operation in operations(document)}

    assert ids["POST /v1/txt2img"] == "createTxt2img"
    assert ids["GET /v1/jobs/{id}"] == "getJob"
    assert ids["DELETE /v1/loras/{id}"] == "deleteLora"
    assert [id for id in ids.values() if not re.fullmatch("[a-z]+([A-Z][a-z0-9]*)+", id)] == []


def test_uploads_and_images_list_their_media_types(document: Json) -> None:
    upload = document["paths"]["/v1/uploads"]["post"]["requestBody"]["content"]
    images = document["paths"]["/v1/jobs/{id}/images/{n}"]["get"]["responses"]["200"]["content"]

    assert {"image/png", "image/jpeg", "image/webp", "multipart/form-data"} <= upload.keys()
    assert "image/png" in upload["multipart/form-data"]["encoding"]["file"]["contentType"]
    assert images.keys() == {"image/png", "image/jpeg", "image/webp"}


def test_every_error_is_documented_in_the_dialect_of_its_path(document: Json) -> None:
    for name, operation in operations(document):
        prefixes = (" /v1/images/", " /v1/files", " /v1/batches", " /hf", " /sdapi/", " /controlnet/")
        is_foreign = any(prefix in name for prefix in prefixes)
        media_type = "application/json" if is_foreign else "application/problem+json"
        errors = {status: part for status, part in operation["responses"].items() if status >= "400"}
        assert "500" in errors, name
        for status, part in errors.items():
            ((kind, content),) = part["content"].items()
            assert (kind, len(content["examples"]) > 0) == (media_type, True), f"{name} {status}"


def test_a_method_that_is_not_allowed_is_answered_with_the_allowed_ones(client: TestClient) -> None:
    for method, path, allowed in (
        ("PUT", "/v1/jobs/1", "DELETE, GET, HEAD, OPTIONS"),
        ("GET", "/v1/txt2img", "OPTIONS, POST"),
        ("PATCH", "/v1/jobs/1/cancel", "OPTIONS, POST"),
        ("DELETE", "/openapi.json", "GET, HEAD, OPTIONS"),
        ("POST", "/page/main.js", "GET, HEAD, OPTIONS"),
    ):
        response = client.request(method, path)
        assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
        assert sorted(response.headers["allow"].split(", ")) == allowed.split(", ")


def test_the_document_is_rendered_once(client: TestClient) -> None:
    first = client.get("/openapi.json")
    cast("DocumentedApi", client.app).openapi_schema = {"info": "another document"}

    assert client.get("/openapi.json").content == first.content
    assert first.headers["content-type"] == "application/json"


def test_a_form_has_files_for_images_and_no_null(document: Json) -> None:
    content = document["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"]
    form = document["components"]["schemas"]["EditForm"]

    assert content["multipart/form-data"]["schema"] == {"$ref": "#/components/schemas/EditForm"}
    assert [form["properties"][name]["format"] for name in ("image", "mask")] == ["binary", "binary"]
    assert form["required"] == document["components"]["schemas"]["EditRequest"]["required"]
    types = [kind["type"] for kind in [*form["properties"].values()] if "type" in kind]
    assert set(types) == {"string", "integer", "number", "boolean"}
    assert "null" not in found(form, "type")


def test_the_webhook_is_an_operation_with_a_name(document: Json) -> None:
    ((_, operation),) = document["webhooks"]["job"].items()

    assert operation["operationId"] == "receiveEvent"
    assert all(parameter["description"] for parameter in operation["parameters"])


def nullable(part: Json) -> bool:
    return {"type": "null"} in part.get("anyOf", ())


def test_null_is_allowed_wherever_it_counts_as_absent(document: Json) -> None:
    schemas = [schema for name, schema in document["components"]["schemas"].items() if name.endswith("Request")]
    optional = {
        (schema["title"], name): part
        for schema in schemas
        for name, part in schema["properties"].items()
        if name not in schema.get("required", ())
    }
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    parameters = [each for operation in operations for each in operation.get("parameters", ())]

    assert len(optional) > 100
    assert [where for where, part in optional.items() if not nullable(part)] == []
    assert nullable(next(each for each in parameters if each["name"] == "limit")["schema"])
    assert not any(nullable(each["schema"]) for each in parameters if each["in"] != "query")
