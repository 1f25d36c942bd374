"""Bodies are parsed strictly, and errors name their fields."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.parsing.requests import parse, parse_any
from contracts.catalogue.families import Task
from contracts.errors import InvalidRequest, UnreadableBody
from contracts.requests.schema import (
    REQUESTS,
    ControlNetRequest,
    Img2ImgRequest,
    InpaintRequest,
    JobRequest,
    Txt2ImgRequest,
)

LORA, CONTROL = {"name": "x"}, {"controlnet": "x"}
REQUIRED = {
    Task.TXT2IMG: [],
    Task.IMG2IMG: ["image"],
    Task.INPAINT: ["image", "mask_image"],
    Task.CONTROLNET: ["controls"],
    Task.EDIT: ["references"],
}


def test_a_complete_request_is_read() -> None:
    body = {"prompt": "a red circle", "width": 64, "guidance_scale": 3, "original_size": [64, 64], "loras": [LORA]}

    request = parse(Txt2ImgRequest, json.dumps(body).encode())

    assert (request.width, request.guidance_scale, request.original_size) == (64, 3.0, (64, 64))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{'prompt': 'x'}",
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b"[" * 10_000,
        b"\x1f\x8b\x08",
    ],
)
def test_a_body_that_is_not_json_cannot_be_read(raw: bytes) -> None:
    with pytest.raises(UnreadableBody, match="the body is not valid JSON"):
        parse(Txt2ImgRequest, raw)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ('{"prompt": "é"}'.encode("latin-1"), "it is not UTF-8 at line 1 column 13; encode it as that"),
        (b'{"prompt": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"prompt": "\\ude00"}', "half of a surrogate pair"),
        (b"{'prompt': 'x'}", "a name must be a string in double quotes at line 1 column 2"),
        (b'{"prompt": None}', "of words it has only true, false and null"),
    ],
)
def test_a_body_that_is_almost_json_is_told_what_is_wrong(raw: bytes, words: str) -> None:
    with pytest.raises(UnreadableBody, match=words):
        parse(Txt2ImgRequest, raw)


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"x"', b"1"])
def test_json_that_is_not_an_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="body: must be a JSON object"):
        parse(Txt2ImgRequest, raw)


@pytest.mark.parametrize(
    ("kind", "changes", "field", "allowed"),
    [
        (Txt2ImgRequest, {"width": "64"}, "width", "64–2048"),
        (Txt2ImgRequest, {"width": 64.0}, "width", "64–2048"),
        (Txt2ImgRequest, {"width": 63}, "width", "64–2048"),
        (Txt2ImgRequest, {"height": 2056}, "height", "64–2048"),
        (Txt2ImgRequest, {"num_images": 0}, "num_images", "1–8"),
        (Txt2ImgRequest, {"num_images": True}, "num_images", "1–8"),
        (Txt2ImgRequest, {"seed": -2}, "seed", "-1–4294967302"),
        (Txt2ImgRequest, {"seed": 2**32 + 7}, "seed", "-1–4294967302"),
        (Txt2ImgRequest, {"batchable": 1}, "batchable", [True, False]),
        (Txt2ImgRequest, {"output_format": "gif"}, "output_format", ["png", "jpeg", "webp"]),
        (Txt2ImgRequest, {"priority": "urgent"}, "priority", ["high", "normal", "low"]),
        (Txt2ImgRequest, {"task": "img2img"}, "task", ["txt2img"]),
        (Txt2ImgRequest, {"prompt": ""}, "prompt", "1–10000 characters"),
        (Txt2ImgRequest, {"prompt": 7}, "prompt", "1–10000 characters"),
        (Txt2ImgRequest, {"guidance_scale": 31}, "guidance_scale", "0–30"),
        (Txt2ImgRequest, {"original_size": [1]}, "original_size.1", "0–8192"),
        (Txt2ImgRequest, {"original_size": [1, 9000]}, "original_size.1", "0–8192"),
        (Txt2ImgRequest, {"loras": [LORA] * 9}, "loras", "0–8 entries"),
        (Txt2ImgRequest, {"loras": [LORA, {"name": "x", "scale": 5}]}, "loras.1.scale", "-4–4"),
        (Txt2ImgRequest, {"loras": [{"name": "x", "weight": 1}]}, "loras.0.weight", ["name", "scale"]),
        (Txt2ImgRequest, {"metadata": {"a": 1}}, "metadata.a", None),
        (Txt2ImgRequest, {"metadata": {str(n): "" for n in range(17)}}, "metadata", "0–16 entries"),
        (Txt2ImgRequest, {"metadata": {"a": "é" * 1025}}, "metadata", "0–16 entries"),
        (Img2ImgRequest, {"image": "x", "strength": 0}, "strength", "above 0, up to 1"),
        (Img2ImgRequest, {}, "image", None),
        (InpaintRequest, {"image": "x"}, "mask_image", None),
        (ControlNetRequest, {"controls": []}, "controls", "1–4 entries"),
        (ControlNetRequest, {"controls": [{}]}, "controls.0.controlnet", None),
        (ControlNetRequest, {"controls": [CONTROL | {"guidance_end": 2}]}, "controls.0.guidance_end", "0–1"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_allowed(
    kind: type[JobRequest], changes: dict[str, Any], field: str, allowed: object
) -> None:
    body = {"prompt": "x"} | changes

    with pytest.raises(InvalidRequest) as caught:
        parse(kind, json.dumps(body).encode())

    (problem,) = caught.value.problems
    assert (problem.field, problem.allowed) == (field, allowed)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_nan_and_infinity_are_refused(number: str) -> None:
    with pytest.raises(InvalidRequest, match="guidance_scale"):
        parse(Txt2ImgRequest, f'{{"prompt": "x", "guidance_scale": {number}}}'.encode())


def test_an_unknown_field_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(Txt2ImgRequest, b'{"prompt": "x", "sampler_name": "Euler"}')

    (problem,) = caught.value.problems
    assert problem.field == "sampler_name"
    assert problem.message == "is not a field of this request; did you mean scheduler?"
    assert problem.allowed == sorted(Txt2ImgRequest.model_fields)


@pytest.mark.parametrize("field", ["image", "controls", "stream"])
def test_fields_of_other_tasks_are_refused(field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{field}: is not a field"):
        parse(Txt2ImgRequest, json.dumps({"prompt": "x", field: 1}).encode())


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(Txt2ImgRequest, b'{"prompt": "", "width": "x", "height": 1, "y": 1}')

    assert {problem.field for problem in caught.value.problems} == {"prompt", "width", "height", "y"}


@pytest.mark.parametrize(("task", "kind"), REQUESTS.items())
def test_the_task_field_selects_the_kind_of_request(task: Task, kind: type[JobRequest]) -> None:
    values = {"image": "AAAA", "mask_image": "AAAA", "controls": [CONTROL], "references": ["AAAA"]}
    required = {name: value for name, value in values.items() if name in REQUIRED[task]}

    assert type(parse_any(json.dumps({"task": task, "prompt": "x"} | required).encode())) is kind


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"prompt": "x"}, "task", "is required"),
        ({"prompt": "x", "task": "txt2vid"}, "task", "got 'txt2vid'"),
        ({"prompt": "x", "task": "txt2img", "width": 63}, "width", "must be at least 64, got 63"),
        ({"task": "controlnet", "prompt": "x", "controls": [{}]}, "controls.0.controlnet", "is required"),
        ([], "body", "must be a JSON object"),
    ],
)
def test_a_request_with_a_task_field_gets_the_errors_of_its_own_route(
    body: object, field: str, message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_any(json.dumps(body).encode())

    (problem,) = caught.value.problems
    assert problem.field == field
    assert message in problem.message


def test_a_body_of_any_task_that_is_not_json_cannot_be_read() -> None:
    with pytest.raises(UnreadableBody, match="not valid JSON"):
        parse_any(b"{")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": "64"}, "must be a whole number, got '64'"),
        ({"num_images": 9}, "must be at most 8, got 9"),
        ({"num_images": True}, "must be a whole number, got true"),
        ({"output_format": "gif"}, "must be one of 'png', 'jpeg' or 'webp', got 'gif'"),
        ({"speed": "x" * 41}, "must be one of 'exact' or 'fast'"),
        ({"task": "inpaint"}, "must be one of 'txt2img', got 'inpaint'"),
        ({"loras": [LORA] * 9}, "must have at most 8 entries, got 9"),
        ({"prompt": 3}, "must be a string, got 3"),
    ],
)
def test_messages_say_what_is_allowed_and_what_was_received(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(Txt2ImgRequest, json.dumps({"prompt": "x"} | fields).encode())

    (problem,) = caught.value.problems
    assert problem.message == message
