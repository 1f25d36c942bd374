"""What a JSON body may hold besides images, and that refusing one costs no more than reading it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.dialects.openai.schema import EditRequest
from app.errors import BodyTooLarge
from app.parsing.json_bodies import IMAGE_FIELDS, MAX_JSON_BYTES, check_json
from app.parsing.requests import parse
from contracts.errors import InvalidRequest, UnreadableBody
from contracts.requests.schema import REQUESTS, Img2ImgRequest, InpaintRequest, JobRequest

LARGE = "A" * (2 * MAX_JSON_BYTES)


def test_images_do_not_count_wherever_they_are() -> None:
    check_json(json.dumps({"prompt": "a", "image": LARGE, "mask_image": LARGE}).encode())
    check_json(
        json.dumps({"controls": [{"image": LARGE}, {"controlnet": "c", "image": LARGE}]}, indent=2).encode()
    )
    check_json(json.dumps({"image": LARGE.replace("A", "/")}).replace("/", "\\/").encode())


def test_anything_else_of_more_than_the_limit_is_refused(subtests: pytest.Subtests) -> None:
    # Made here: megabytes that every run would make when it only looks for its tests.
    for name, raw in (
        ("fields", json.dumps({f"k{number}": 1 for number in range(100_000)})),
        ("short texts beside an image", json.dumps({"image": LARGE, "references": ["a"] * 5_000})),
        ("prompt", json.dumps({"prompt": LARGE})),
        ("name", json.dumps({LARGE: 1})),
        ("name below an image", json.dumps({"image": {LARGE: 1}})),
        ("model", json.dumps({"image": LARGE, "model": LARGE})),
        ("quotes", json.dumps({"image": LARGE.replace("A", '"')})),
        ("empty images", json.dumps({"image": [""] * MAX_JSON_BYTES})),
        ("spaces", json.dumps({"prompt": "a"}) + " " * MAX_JSON_BYTES),
        ("brackets", "[" * (2 * MAX_JSON_BYTES)),
    ):
        with (
            subtests.test(name),
            pytest.raises(BodyTooLarge, match=f"more than {MAX_JSON_BYTES} bytes besides its images"),
        ):
            check_json(raw.encode())


def test_a_cut_off_image_is_reported_as_such() -> None:
    with pytest.raises(UnreadableBody, match="EOF while parsing"):
        parse(Img2ImgRequest, json.dumps({"prompt": "a", "image": LARGE}).encode()[:-2])


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ('{"prompt": "a", "prompt": "b"}', "prompt"),
        ('{"prompt": "a", "metadata": {"k": "1", "k": "2"}}', "k"),
        (json.dumps({"image": LARGE})[:-1] + ', "seed": 1, "seed": 2}', "seed"),
    ],
)
def test_a_repeated_name_is_refused(raw: str, field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: is given more than once"):
        check_json(raw.encode())


def test_every_field_that_names_an_image_is_known() -> None:
    fields = InpaintRequest.model_fields
    descriptions = {fields["image"].description, fields["mask_image"].description}

    def image_fields(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict):
            for name, part in schema.get("properties", {}).items():
                if part.get("description") in descriptions:
                    yield name
        for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
            yield from image_fields(part)

    found = set()
    kinds: list[type[JobRequest]] = [*REQUESTS.values(), EditRequest]
    for kind in kinds:
        found |= set(image_fields(kind.model_json_schema()))
    assert {"image", "mask_image"} <= found <= {name.decode() for name in IMAGE_FIELDS}


JUNK = {f"k{number}": 1 for number in range(5_000)}


def test_a_refusal_shows_fifty_problems_and_says_how_many_there_are(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    for path in ["/v1/txt2img", "/v1/plan", "/v1/images/generations", "/v1/images/edits"]:
        with subtests.test(path=path):
            body = {"task": "txt2img", "prompt": "a", **({"image": "x"} if path.endswith("edits") else {})}
            response = client.post(path, json=body | JUNK)

            problem = response.json()
            text = problem["error"]["message"] if "error" in problem else problem["detail"]
            assert response.status_code == 422
            assert text.startswith("500"), text[:80]  # OpenAI's requests have no field `task`, so a problem more
            assert "problems, of which the first 50 are shown: " in text
            assert "error" in problem or len(problem["errors"]) == 50


def test_exactly_fifty_problems_are_all_shown(client: TestClient) -> None:
    body = {"prompt": "a", **{f"k{number}": 1 for number in range(50)}}
    problem = client.post("/v1/txt2img", json=body).json()

    assert len(problem["errors"]) == 50
    assert problem["detail"].startswith("k0: ")


def test_a_json_body_above_the_limit_is_refused_on_every_route(client: TestClient) -> None:
    body = json.dumps({"prompt": "a", **{f"k{number}": 1 for number in range(30_000)}})
    for path in ("/v1/txt2img", "/v1/plan", "/v1/images/generations", "/v1/images/edits"):
        response = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 413, path


def test_a_list_longer_than_any_field_takes_is_one_problem(client: TestClient) -> None:
    problem = client.post("/v1/txt2img", json={"prompt": "a", "loras": [1] * 60_000}).json()

    assert [(error["field"], error["message"]) for error in problem["errors"]] == [
        ("loras", "must have at most 100 entries, got 60000")
    ]


def test_the_names_of_a_large_object_are_not_examined_one_by_one(client: TestClient) -> None:
    junk = {f"k{number}": 1 for number in range(101)}
    inside = client.post("/v1/txt2img", json={"prompt": "a", "metadata": junk}).json()
    scattered = [dict.fromkeys(list(junk)[:99], 1) for _ in range(20)]
    everywhere = client.post("/v1/controlnet", json={"prompt": "a", "controls": scattered}).json()

    assert [(error["field"], error["message"]) for error in inside["errors"]] == [
        ("metadata", "must have at most 100 names, got 101")
    ]
    assert [error["field"] for error in everywhere["errors"]] == ["body"]
    assert "has 1982 names in its objects; at most 1000 are allowed" in everywhere["detail"]


def test_a_message_about_too_many_entries_says_how_many_may_be_sent(client: TestClient) -> None:
    body = {"prompt": "a", "metadata": {str(number): "x" for number in range(17)}}

    (error,) = client.post("/v1/txt2img", json=body).json()["errors"]

    assert (error["field"], error["message"]) == ("metadata", "must have at most 16 entries")


def test_a_body_with_many_unknown_names_is_refused_before_they_cost_an_error_each() -> None:
    body = json.dumps({"prompt": "a", "seed": 1, **JUNK}).encode()

    with pytest.raises(InvalidRequest) as caught:
        check_json(body, JobRequest.model_fields)

    assert str(caught.value).startswith("5000 problems, of which the first 50 are shown: k0: is not a field")
    check_json(json.dumps({"prompt": "a", "metadata": {str(n): "x" for n in range(16)}}).encode())


def test_a_hostile_field_of_a_form_is_refused_and_not_an_error_of_the_service(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    for field in ["[" * 100_000, "9" * 200_000, '{"a":' * 30_000, '{"a": "1", "a": "2"}', "NaN", "1e999"]:
        with subtests.test(field=field):
            form = {"prompt": "a", "image": "upload:none", "metadata": field}
            response = client.post("/v1/images/edits", data=form, files={"other": b"x"})

            assert response.status_code == 422, response.text


@pytest.mark.parametrize("path", ["/v1/txt2img", "/v1/images/generations"])
def test_a_byte_order_mark_in_front_of_a_body_is_no_part_of_it(client: TestClient, path: str) -> None:
    response = client.post(path, content=b"\xef\xbb\xbf{}", headers={"Content-Type": "application/json"})

    assert (response.status_code, "prompt" in response.text) == (422, True)


def test_a_body_in_another_encoding_of_unicode_is_refused_by_name(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    for encoding in ["utf-16", "utf-16-le", "utf-16-be", "utf-32"]:
        with subtests.test(encoding=encoding):
            body = '{"prompt": "a"}'.encode(encoding)
            response = client.post("/v1/txt2img", content=body, headers={"Content-Type": "application/json"})

            assert (response.status_code, response.json()["code"]) == (400, "unreadable_body")
            assert "must be UTF-8" in response.json()["detail"]


def test_an_empty_body_is_called_empty(client: TestClient, subtests: pytest.Subtests) -> None:
    for body in [b"", b" \n"]:
        with subtests.test(body=body):
            response = client.post("/v1/txt2img", content=body, headers={"Content-Type": "application/json"})

            assert (response.status_code, "it is empty" in response.json()["detail"]) == (400, True)


def test_a_name_given_twice_inside_a_list_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="scale: is given more than once"):
        check_json(b'{"loras": [{"name": "a", "scale": 1, "scale": 2}]}')
