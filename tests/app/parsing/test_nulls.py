"""Null means absent: in every body, at every depth, in forms, and in queries."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.dialects.openai.forms import read_edit_form
from app.dialects.openai.requests import read_request
from app.dialects.openai.schema import EditRequest
from app.parsing.json_bodies import without_nulls
from app.parsing.requests import parse, parse_any
from contracts.catalogue.families import Task
from contracts.errors import InvalidRequest
from contracts.requests.schema import REQUESTS
from tests.support.requests import BODIES


@pytest.mark.parametrize("task", BODIES)
def test_a_null_in_any_field_that_may_be_absent_is_the_same_as_no_field(task: str) -> None:
    kind = REQUESTS[Task(task)]
    plain = parse(kind, json.dumps(BODIES[task]).encode())
    optional = {name: None for name, field in kind.model_fields.items() if not field.is_required()}

    assert parse(kind, json.dumps(optional | BODIES[task]).encode()) == plain
    nulls = optional | BODIES[task] | {"task": task, "unknown": None}
    assert parse_any(json.dumps(nulls).encode()) == plain


def test_nulls_inside_of_entries_and_objects_are_absent() -> None:
    control = BODIES["controlnet"]["controls"][0]
    lora = {"name": "a"}
    nothing: dict[str, Any] = {"conditioning_scale": None, "guidance_end": None, "preprocess": None}
    body = {"prompt": "x", "controls": [control | nothing], "loras": [lora | {"scale": None}]}

    parsed = parse(REQUESTS[Task.CONTROLNET], json.dumps(body | {"metadata": {"a": None, "b": "c"}}).encode())

    plain = {"prompt": "x", "controls": [control], "loras": [lora], "metadata": {"b": "c"}}
    assert parsed == parse(REQUESTS[Task.CONTROLNET], json.dumps(plain).encode())


@pytest.mark.parametrize("body", ['{"image": null}', '{"image": "x", "loras": [null]}', "null", "[null]"])
def test_a_null_that_must_be_something_is_refused(body: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(REQUESTS[Task.IMG2IMG], body.encode())


@pytest.mark.parametrize("number", ["NaN", "1e999"])
def test_numbers_that_are_not_finite_are_refused_beside_nulls_too(number: str) -> None:
    with pytest.raises(InvalidRequest, match="guidance_scale"):
        parse(REQUESTS[Task.TXT2IMG], f'{{"prompt": "x", "seed": null, "guidance_scale": {number}}}'.encode())


def test_the_word_null_in_a_form_is_absent_but_in_a_prompt() -> None:
    fields = {name: "null" for name, field in EditRequest.model_fields.items() if not field.is_required()}
    del fields["prompt"], fields["negative_prompt"], fields["prompt_2"], fields["prompt_3"]
    texts = {"user": "null", "safety_identifier": "null"}

    form: list[tuple[str, str | bytes]] = [*({**fields, **texts}).items(), ("prompt", "null"), ("image", b"x")]
    request = read_request(EditRequest, read_edit_form(form).json).require()

    assert (request.prompt, request.user) == ("null", "null")
    assert request.model_fields_set == {"prompt", "image", "user", "safety_identifier"}


def test_the_word_null_in_a_query_is_absent(client: TestClient) -> None:
    query = "&".join(f"{name}=null" for name in ("status", "model", "task", "limit", "cursor", "include"))

    response = client.get(f"/v1/jobs?{query}")

    assert response.status_code == 200, response.text
    assert client.get("/v1/jobs?status=nothing").status_code == 422


def test_a_body_is_not_written_again_for_the_letters_of_null_in_an_image() -> None:
    """They are in most images of a few megabytes, and reading and writing these takes as long as a request."""
    body = b'{"prompt": "x", "image": "AnullA"}'
    assert without_nulls(body) is body
    assert without_nulls(b'{"prompt": "x", "seed" : \t\nnull}') == b'{"prompt":"x"}'
